/**
 * Every form in which a block can run: random forms and factors against the original graph with the weights that the factors
 * stand for, over every architecture and format.
 */
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import {
  chooseForm,
  extractWeights,
  findAttention,
  rewriteDense,
  rewriteFactored,
  structureKey,
} from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import { encodeModel, loadModel } from "../../src/onnx/model.ts";
import { Architecture } from "../support/encoders.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { furtherArchitectures, oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { randomFactors, randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { seeded } from "../support/random_tucker.ts";
import { TestSession } from "../support/session.ts";
import { testSeed } from "../support/seed.ts";

const MODELS = [
  "roberta",
  "albert",
  "vit",
  "bloom",
  "gpt2",
  "gptj",
  "codegen",
  "llama-gqa",
  "falcon-mqa",
  "gemma2",
  "qwen3",
];
/** Positions projected too, positions first, windows in four dimensions. */
const OTHERS = ["deberta-v3", "wavlm", "sam-vision", "modernbert", "swin"].map((name) => new Architecture(name))
  .map(({ name, folder, forms, reference }) => {
    const file = `${forms[0]}/model.onnx`;
    return { model: name, file, path: new URL(file, folder).pathname, reference };
  });
const SUBJECTS = [
  ...OTHERS,
  ...[...MODELS, ...furtherArchitectures()].flatMap((model) => oracleExports(model).slice(-1))
    .map((exported) => ({ ...exported, reference: oracleReference(exported.model) })),
  ...oracleFormats().filter(({ format }) => /fused|int8-dynamic|int4|fp16-io32/.test(format)),
];

for (const { model: name, file, path, reference } of SUBJECTS) {
  Deno.test(`${name}/${file}: random forms compute what their dense weights do`, async () => {
    const seed = testSeed();
    const random = seeded(seed);
    const model = await loadModel(path);
    const { blocks } = findAttention(model);
    for (let trial = 0; trial < 3; trial++) {
      const forms = new Map(blocks.map((block): [number, BlockForm] => [block.layer, randomForm(block, random)]));
      const { rewritten, feeds, weights } = withRandomFactors(model, forms, random);
      await using expectedSession = await TestSession.load(rewriteDense(model, weights));
      await using session = await TestSession.load(rewritten);
      const { inputs } = reference.cases.find((entry) => entry.name === "single")!;
      const expected = await expectedSession.run(inputs);
      const actual = await session.run(inputs, feeds);
      for (const output of Object.keys(expected).filter((key) => !key.startsWith("present."))) {
        const what = `seed ${seed}, trial ${trial}, ${structureKey(forms)}, ${output}`;
        const atol = (/fp16|int8-dynamic/.test(file) ? 5e-2 : 1e-3) * largestValue(expected[output]!.data);
        assertNear(actual[output]!.data, expected[output]!.data, { atol, rtol: 0, what });
      }
    }
  });
}

const [bert] = oracleExports("bert");

Deno.test("a rewrite leaves the given model and the blocks that aren't named untouched", async () => {
  const model = await loadModel(bert!.path);
  const before = encodeModel(model);
  const { blocks } = findAttention(model);
  const forms = new Map([[1, chooseForm(blocks[1]!, "tucker4", { r3: 2 })]]);
  const { model: rewritten } = rewriteFactored(model, forms, { factors: "inputs" });
  assertEquals(encodeModel(model), before);
  const kept = new Set(rewritten.proto.graph!.node);
  const others = model.proto.graph!.node.filter(({ name }) => /layer\.[02]\//.test(name));
  assert(others.length > 0 && others.every((node) => kept.has(node)));
  const left = findAttention(rewritten);
  assertEquals(left.blocks.map(({ name }) => name), [0, 2].map((l) => blocks[l]!.name));
});

Deno.test("a rewritten encoder block is twenty nodes around its softmax", async () => {
  const model = await loadModel(bert!.path);
  const { blocks } = findAttention(model);
  const forms = new Map(
    blocks.map((block): [number, BlockForm] => [block.layer, chooseForm(block, "tucker4", { r3: 2 })]),
  );
  const { model: rewritten, slots } = rewriteFactored(model, forms, { factors: "inputs" });
  const count = (layer: number): Record<string, number> => {
    const nodes = rewritten.proto.graph!.node.filter(({ name }) => name.startsWith(`tuckerd/layer${layer}/`));
    return Object.fromEntries(
      [...new Set(nodes.map(({ opType }) => opType))].sort()
        .map((opType) => [opType, nodes.filter((node) => node.opType === opType).length]),
    );
  };
  assertEquals(count(0), { Add: 2, MatMul: 8, Mul: 1, Reshape: 4, Transpose: 4 });
  assertEquals(slots.filter(({ layer }) => layer === 0).map(({ role, shape }) => [role, ...shape]), [
    ["down", 48, "layer0.r1"],
    ["query.b", "layer0.r1", "4*layer0.key.r2"],
    ["query.bias", "4*layer0.key.r2"],
    ["key.b", "layer0.r1", "4*layer0.key.r2"],
    ["value.b", "layer0.r1", "4*layer0.value.r2"],
    ["output.a", "4*layer0.value.r2", "layer0.r1"],
    ["up", "layer0.r1", 48],
    ["output.bias", 48],
  ]);
});

Deno.test("factors as initializers give what factors as inputs give", async () => {
  const model = await loadModel(bert!.path);
  const { blocks } = findAttention(model);
  const [block] = blocks;
  const forms = new Map([[0, chooseForm(block!, "tucker4", { r3: 2 })]]);
  const { model: open, slots } = rewriteFactored(model, forms, { factors: "inputs" });
  const { feeds } = randomFactors(slots, { form: forms.get(0)!, ...extractWeights(model, block!) }, seeded(7));
  const { model: closed } = rewriteFactored(model, forms, {
    factors: "initializers",
    tensors: ({ name }) => ({ shape: feeds[name]!.shape, data: Float32Array.from(feeds[name]!.data) }),
  });
  assertEquals(closed.proto.graph!.input, model.proto.graph!.input);
  await using openSession = await TestSession.load(open);
  await using closedSession = await TestSession.load(closed);
  const { inputs } = oracleReference("bert").cases[0]!;
  const expected = await openSession.run(inputs, feeds);
  const actual = await closedSession.run(inputs);
  for (const [name, { data }] of Object.entries(expected)) {
    assertNear(actual[name]!.data, data, { atol: 1e-5, rtol: 0, what: name });
  }
  const tensors = (): { shape: number[]; data: Float32Array } => ({ shape: [1], data: new Float32Array(1) });
  assertThrows(() => rewriteFactored(model, forms, { factors: "initializers", tensors }), RangeError, "needs shape");
});

Deno.test("structure keys tell forms apart, and ranks don't enter them", async () => {
  const { blocks } = findAttention(await loadModel(bert!.path));
  const tucker = chooseForm(blocks[0]!, "tucker4", { r3: 2 });
  const forms: BlockForm[] = [tucker, { ...tucker, output: "dense" }, chooseForm(blocks[0]!, "low-rank")];
  const keys = [
    ...forms.map((form) => structureKey(new Map([[0, form]]))),
    structureKey(new Map([[1, tucker]])),
    structureKey(new Map([[0, tucker], [1, tucker]])),
  ];
  assertEquals(new Set(keys).size, keys.length);
  assertEquals(structureKey(new Map([[1, tucker], [0, tucker]])), keys.at(-1));
  assertEquals(chooseForm(blocks[0]!, "tucker4", { r3: 4 }), tucker);
});

Deno.test("forms that a block can't run in are refused with the reason", async () => {
  const [llama] = oracleExports("llama-gqa");
  const model = await loadModel(llama!.path);
  const [block] = findAttention(model).blocks;
  const form = chooseForm(block!, "tucker4", { r3: 2 });
  const refuse = (changes: Partial<BlockForm>, text: string): void => {
    const forms = new Map([[0, { ...form, ...changes }]]);
    const error = assertThrows(() => rewriteFactored(model, forms, { factors: "inputs" }), TuckerdError, text);
    assertEquals(error.kind, "unsupported");
  };
  refuse({ queryKey: "reduced" }, "query: Mul");
  refuse({ valueOutput: "reduced", value: "kept" }, "value is kept");
  refuse({ keyValueHeads: 3 }, "neither 2 nor 6");
  assertThrows(() => rewriteFactored(model, new Map([[9, form]]), { factors: "inputs" }), RangeError, "0 to 1");
});
