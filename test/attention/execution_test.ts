/**
 * The property that everything rests on: with any subset of layers compressed to any ranks, factored and dense execution
 * agree. Random layers, ranks and subspaces, over every architecture and format.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import { randomTucker, seeded } from "../support/random_tucker.ts";
import { nestedNumbers, oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";
import { identityTucker, reconstruct, type ReferenceTucker, unstackWeights } from "../support/tucker_reference.ts";
import { testSeed } from "../support/seed.ts";

/** Rounding in 16 bits, or of quantised activations, differs between two ways of computing the same. */
const COARSE = /fp16|qdq|dynamic/;

const SUBJECTS = [
  ...[
    "roberta",
    "albert",
    "vit",
    "bloom",
    "gpt2",
    "gptj",
    "codegen",
    "llama",
    "llama-gqa",
    "falcon-mqa",
    "gemma2",
    "qwen3",
  ]
    .flatMap((model) => oracleExports(model).slice(0, 1))
    .map((exported) => ({ ...exported, reference: oracleReference(exported.model) })),
  ...oracleFormats(),
];

for (const { model: name, file, path, reference } of SUBJECTS) {
  Deno.test(`${name}/${file}: random layers at random ranks run factored as dense`, async () => {
    const seed = testSeed();
    const random = seeded(seed);
    const model = await loadModel(path);
    const { blocks } = findAttention(model);
    const chosen = blocks.filter(() => random() < 0.6);
    if (chosen.length === 0) chosen.push(blocks[0]!);
    const factors = new Map(chosen.map((block): [number, ReferenceTucker] => [
      block.layer,
      randomTucker(extractWeights(model, block).weights, random),
    ]));
    const dense = rewriteDense(
      model,
      new Map([...factors].map(([layer, tucker]) => [layer, unstackWeights(reconstruct(tucker), tucker)])),
    );
    const { model: rewritten, feeds } = factored(model, factors);
    await using denseSession = await TestSession.load(dense);
    await using session = await TestSession.load(rewritten);
    const entry = reference.cases.find((candidate) => candidate.name === "single")!;
    const expected = await denseSession.run(entry.inputs);
    const actual = await session.run(entry.inputs, feeds);
    const ranks = [...factors].map(([layer, tucker]) => `${layer}: ${tucker.ranks}`);
    for (const output of Object.keys(expected).filter((key) => !key.startsWith("present."))) {
      const what = `seed ${seed}, layers ${ranks.join("; ")}, ${output}`;
      const atol = (COARSE.test(file) ? 3e-2 : 1e-3) * largestValue(expected[output]!.data);
      assertEquals(actual[output]!.shape, expected[output]!.shape, what);
      assertNear(actual[output]!.data, expected[output]!.data, { atol, rtol: 0, what });
    }
  });
}

/** Blocks of models that haven't two; ALBERT's layers are one. */
const BLOCKS: Readonly<Record<string, number>> = { albert: 1, bert: 3, gpt2: 3 };

for (const { model: name, format, file, path, reference, interventions, own } of oracleFormats()) {
  Deno.test(`formats/${name}/${file}: every block is found, and full ranks give the file's own outputs`, async () => {
    const model = await loadModel(path);
    const { blocks, skipped } = findAttention(model);
    assertEquals(skipped, []);
    assertEquals(blocks.length, BLOCKS[name] ?? 2);
    // Files that quantise activations give other outputs once their projections are float: references then say which.
    const full = own ? interventions.find(({ name }) => name === "full") : undefined;
    const cases = full?.cases ?? reference.cases;
    const layers = full?.layers.map(({ layer }) => Number(layer)) ?? blocks.map(({ layer }) => layer);
    const factors = new Map(layers.map((layer): [number, ReferenceTucker] => {
      return [layer, identityTucker(extractWeights(model, blocks[layer]!).weights)];
    }));
    const { model: rewritten, feeds } = factored(model, factors);
    await using session = await TestSession.load(rewritten);
    let compared = 0;
    for (const { name: caseName, outputs } of cases) {
      const entry = reference.cases.find((candidate) => candidate.name === caseName)!;
      if (caseName !== "single") continue;
      const actual = await session.run(entry.inputs, feeds);
      for (const [output, nested] of Object.entries(outputs).filter(([key]) => key in actual)) {
        const what = `${format} ${caseName} ${output}`;
        // One rounding of an activation that falls the other way moves these logits by that much.
        const { atol, rtol } = format === "int8-dynamic" ? { atol: 5e-2, rtol: 0 } : reference.tolerance;
        assertNear(actual[output]!.data, nestedNumbers(nested), { atol, rtol, what });
        compared++;
      }
    }
    assert(compared > 0);
  });
}
