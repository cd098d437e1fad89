/**
 * The latent cache: decoders that keep z in place of keys and values compute what PyTorch and dense weights do, whatever pieces
 * a prompt comes in, and hold what their types say.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import {
  type BlockForm,
  chooseForm,
  chooseLatent,
  extractWeights,
  findAttention,
  rewriteDense,
} from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { Conformance } from "../support/conformance.ts";
import { factored } from "../support/factored.ts";
import {
  caseInputs,
  type Nested,
  nestedNumbers,
  oracleExports,
  oracleFormats,
  oracleReference,
  takesOneToken,
} from "../support/oracle.ts";
import { oneByOne, runInPieces } from "../support/pieces.ts";
import { randomBasis, seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { TestSession } from "../support/session.ts";
import {
  projectOnto,
  reconstruct,
  type ReferenceTucker,
  stackWeights,
  unstackWeights,
} from "../support/tucker_reference.ts";

const decoders = (models: readonly string[]) =>
  models.flatMap(oracleExports).filter(({ file }) => /past\/model|merged/.test(file));

/** Interventions by model: of all layers, and of one beside layers that keep their own cache. */
const INTERVENTIONS: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["quarter-d", "half-all-layers"],
  bloom: ["half-all-layers"],
  gptj: ["full", "half-all-layers"],
  codegen: ["full", "half-all-layers"],
  llama: ["full", "quarter-d", "half-all-layers"],
  "llama-gqa": ["full", "quarter-d", "half-all-layers"],
  "falcon-mqa": ["full", "half-all-layers"],
  gemma2: ["full", "half-all-layers"],
};

for (const [name, interventions] of Object.entries(INTERVENTIONS)) {
  const oracle = new Conformance(name);
  for (const exported of decoders([name])) {
    Deno.test(`${name}/${exported.file}: in pieces through a latent cache, logits and greedy tokens are PyTorch's`, async () => {
      await oracle.checkPieces(exported, "latent", interventions);
      await oracle.checkGreedy(exported, "latent", interventions);
      await oracle.checkReplaced(exported, "latent");
    });
  }
}

/** Random ranks; grouped heads also at stack rank 4, where they stay grouped. */
function randomFactors(model: OnnxModel, random: () => number): Map<number, ReferenceTucker> {
  const stackRank = random() < 0.5 ? 4 : 1 + Math.floor(random() * 3);
  return new Map(
    findAttention(model).blocks.map((block) => {
      const { weights } = extractWeights(model, block);
      const { hiddenSize: d, headSize: h, heads } = weights;
      const [u1, u2, u3] = [d, h, 4].map((n) =>
        randomBasis(n, n === 4 ? stackRank : 1 + Math.floor(random() * n), random)
      ) as [Float64Array, Float64Array, Float64Array];
      return [block.layer, projectOnto({ d, h, heads, data: stackWeights(weights) }, { u1, u2, u3 })];
    }),
  );
}

function randomPieces(total: number, random: () => number): number[] {
  const pieces: number[] = [];
  for (let left = total; left > 0; left -= pieces.at(-1)!) {
    pieces.push(Math.min(left, random() < 0.5 ? 1 : 1 + Math.floor(random() * total)));
  }
  return pieces;
}

interface Subject {
  readonly model: string;
  readonly file: string;
  readonly path: string;
  /** Of the largest logit; numbers of 16 bits, or quantised activations, are coarse. */
  readonly tolerance: number;
  /** Whether it takes one token a call behind the first. */
  readonly oneToken?: boolean;
}

const SUBJECTS: readonly Subject[] = [
  ...decoders(["gpt2", "bloom", "gptj", "codegen", "llama", "llama-gqa", "falcon-mqa", "gemma2", "qwen3"])
    .map((exported) => ({ ...exported, tolerance: 1e-4, oneToken: takesOneToken(exported) })),
  ...oracleFormats().filter(({ model }) => ["gpt2", "llama-gqa"].includes(model))
    .map((exported) => ({ ...exported, tolerance: /fp16|dynamic/.test(exported.format) ? 3e-2 : 1e-4 })),
];

for (const { model: name, file, path, tolerance, oneToken = false } of SUBJECTS) {
  Deno.test(`${name}/${file}: at random ranks and in random pieces, a latent cache gives what dense weights give`, async () => {
    const seed = testSeed();
    const random = seeded(seed);
    const model = await loadModel(path);
    const factors = randomFactors(model, random);
    const weights = [...factors].map(([layer, tucker]) =>
      [layer, unstackWeights(reconstruct(tucker), tucker)] as const
    );
    await using dense = await TestSession.load(rewriteDense(model, new Map(weights)));
    const { model: rewritten, feeds, sizes } = factored(model, factors, "latent");
    await using latent = await TestSession.load(rewritten);
    const inputs = promptOf(name, random);
    const total = nestedNumbers(inputs["input_ids"]!).length / 2;
    const visible = nestedNumbers(inputs["attention_mask"]!);
    const cut = randomPieces(total, random);
    const pieces = oneToken ? oneByOne(cut) : cut;
    const { logits: expected } = await runInPieces(dense, inputs, { pieces: [total] });
    const { logits: actual } = await runInPieces(latent, inputs, { pieces, factors: feeds, sizes });
    const width = expected.shape[2]!;
    const shown = (numbers: ArrayLike<number>): number[] =>
      Array.from(numbers).filter((_, i) => visible[Math.floor(i / width)] === 1);
    const ranks = [...factors].map(([layer, tucker]) => `${layer}: ${tucker.ranks}`);
    assertNear(shown(actual.data), shown(expected.data), {
      atol: tolerance * largestValue(shown(expected.data)),
      rtol: 0,
      what: `seed ${seed}, ranks ${ranks.join("; ")}, pieces ${pieces}`,
    });
  });
}

/** Two rows of 20 tokens; where the model takes positions, or makes them from the mask, the second is padded on the left. */
function promptOf(name: string, random: () => number): Record<string, Nested> {
  const reference = oracleReference(name);
  const known = nestedNumbers(caseInputs(reference, "long")["input_ids"]!);
  const row = (): number[] => Array.from({ length: 20 }, () => known[Math.floor(random() * known.length)]!);
  const padding = 3;
  return {
    input_ids: [row(), row()],
    attention_mask: [row().map(() => 1), row().map((_, i) => i < padding ? 0 : 1)],
    position_ids: [row().map((_, i) => i), row().map((_, i) => Math.max(i - padding, 0))],
  };
}

Deno.test("both orders of products are in the graph where there is a past, and one where there is none", async () => {
  const counts = async (file: string): Promise<number[]> => {
    const model = await loadModel(oracleExports("gpt2").find((exported) => exported.file === file)!.path);
    const { model: rewritten } = factored(model, randomFactors(model, seeded(1)), "latent");
    const graphs = [...new Graph(rewritten.proto.graph!).all()];
    const choices = (graph: Graph): number =>
      graph.proto.node.filter(({ opType, name }) => opType === "If" && name.startsWith("tuckerd")).length;
    return graphs.map(choices).filter((count) => count > 0);
  };
  // Scores and context of three layers; the merged decoder has them in the branch with a past only.
  assertEquals(await counts("onnx-past/model.onnx"), [6]);
  assertEquals(await counts("onnx-torch113-decoders/decoder_model_merged.onnx"), [6]);
});

Deno.test("keys and values are expanded once more than G·ρ/H tokens come in one call", async () => {
  const model = await loadModel(decoders(["gpt2"])[0]!.path);
  const { model: rewritten, feeds, sizes } = factored(model, randomFactors(model, seeded(2)), "latent");
  const { graph } = rewritten.proto;
  const names = ["key", "value"].map((part) => `tuckerd/layer1/${part}.many`);
  const [scores, context] = graph!.node.filter(({ opType, name }) => opType === "If" && name.includes("layer1"));
  assertEquals([scores!.input, context!.input], names.map((name) => [name]));
  for (const node of [scores!, context!]) {
    const branch = (name: string): string =>
      node.attribute.find((attribute) => attribute.name === name)!.g!.output[0]!.name;
    assertEquals([branch("then_branch").endsWith(".expanded"), branch("else_branch").endsWith(".expanded")], [
      true,
      false,
    ]);
  }
  const output = [...graph!.output, ...names.map((name) => tensorInfo(name, DataType.BOOL, [1]))];
  const probed = { ...rewritten, proto: withFields(rewritten.proto, { graph: withFields(graph!, { output }) }) };
  await using session = await TestSession.load(probed);
  const rank = sizes["layer1.key.r2"]!;
  for (const [tokens, many] of [[rank, 0], [rank + 1, 1]] as const) {
    const row = Array.from({ length: tokens }, (_, i) => i);
    const inputs = { input_ids: [row], attention_mask: [row.map(() => 1)], position_ids: [row] };
    const outputs = await session.run(inputs, feeds, sizes);
    assertEquals(names.map((name) => Number(outputs[name]!.data[0])), [many, many], `${tokens} tokens, rank ${rank}`);
  }
});

Deno.test("z is chosen where it is smaller than what it stands for", async () => {
  const { blocks: [block] } = findAttention(await loadModel(decoders(["gpt2"])[0]!.path));
  const form = chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" });
  const choose = (changed: Partial<BlockForm>, latent: number, perHead: number) =>
    chooseLatent(block!, { ...form, ...changed }, { sizes: () => ({ latent, perHead }), rotated: false });
  assertEquals(choose({}, 35, 18), ["key", "value"]);
  assertEquals(choose({}, 36, 18), [], "one z for both is compared with both, and not where it is as large");
  assertEquals(choose({ valueOutput: "expanded" }, 17, 18), ["key"]);
  assertEquals(choose({ valueOutput: "expanded" }, 18, 18), []);
  assertEquals(choose({ key: "pair", value: "pair" }, 17, 18), ["key", "value"]);
  assertEquals(choose({ key: "pair", value: "pair" }, 18, 18), [], "z of its own serves one");
  assertEquals(choose({ key: "dense", value: "dense" }, 1, 18), []);
  assertEquals(choose({ queryKey: "expanded", valueOutput: "expanded" }, 1, 18), []);
  const small = { sizes: () => ({ latent: 1, perHead: 18 }), rotated: true };
  assertEquals(chooseLatent({ ...block!, cacheNumbersPerToken: 0 }, form, small), []);
  const refused = { ...block!, noLatentCacheBecause: "its operator keeps the cache" };
  assertEquals(chooseLatent(refused, form, small), []);
  const expanded = { ...form, queryKey: "expanded", valueOutput: "expanded" } as const;
  assertEquals(chooseLatent(block!, expanded, small), ["key"], "keys of full size can be made from z too");
  const { keyRotation: _, ...unknown } = block!;
  assertEquals(chooseLatent(unknown, expanded, small), []);
  assert(block!.noLatentCacheBecause === undefined);
});
