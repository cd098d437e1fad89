/** Grouped key and value heads at a stack rank below 4, where every query head needs its own: what can't be made so. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { TuckerdError } from "../../src/errors.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor, readFloats } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import { oracleExports, oracleReference } from "../support/oracle.ts";
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

/** Llama with grouped queries, whose first layer takes the mean of all its keys away before it splits heads. */
async function centredKeys(): Promise<OnnxModel> {
  const original = await loadModel(oracleExports("llama-gqa").find(({ file }) => file === "onnx/model.onnx")!.path);
  const graph = original.proto.graph!;
  const projection = graph.node.find(({ name }) => /layers\.0\/self_attn\/k_proj\/MatMul$/.test(name))!;
  const [keys] = projection.output as [string];
  const nodes = [
    withFields(projection, { output: ["keys.all"] }),
    makeNode("ReduceMean", ["keys.all"], ["keys.mean"], { name: "mean", attributes: { axes: [-1n], keepdims: 1n } }),
    makeNode("Sub", ["keys.all", "keys.mean"], [keys]),
  ];
  const node = graph.node.flatMap((each) => each === projection ? nodes : [each]);
  return { ...original, proto: withFields(original.proto, { graph: withFields(graph, { node }) }) };
}

/** The first layer at random subspaces. */
function projected(model: OnnxModel, r3: number, random: () => number): ReferenceTucker {
  const { weights } = extractWeights(model, findAttention(model).blocks[0]!);
  const { hiddenSize: d, headSize: h, heads } = weights;
  const [u1, u2, u3] = [[d, d / 2], [h, h / 2], [4, r3]].map(([n, r]) => randomBasis(n!, r!, random)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return projectOnto({ d, h, heads, data: stackWeights(weights) }, { u1, u2, u3 });
}

Deno.test("a norm over all grouped heads together is exact at stack rank 4, and refused below", async () => {
  const seed = testSeed();
  const random = seeded(seed);
  const model = await centredKeys();
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, blocks[0]!.keyValueHeads, skipped], [2, 2, []]);

  const whole = projected(model, 4, random);
  const dense = rewriteDense(model, new Map([[0, unstackWeights(reconstruct(whole), whole)]]));
  const { model: rewritten, feeds } = factored(model, new Map([[0, whole]]));
  await using denseSession = await TestSession.load(dense);
  await using session = await TestSession.load(rewritten);
  const { inputs } = oracleReference("llama-gqa").cases[0]!;
  const expected = (await denseSession.run(inputs))["logits"]!.data;
  const actual = (await session.run(inputs, feeds))["logits"]!.data;
  assertNear(actual, expected, { atol: 1e-4 * largestValue(expected), rtol: 0, what: `seed ${seed}` });

  const mixed = projected(model, 3, random);
  const message =
    /^the key heads of .*Softmax can't become one for each query head, since mean runs over all 2 of them together/;
  for (
    const run of [
      () => factored(model, new Map([[0, mixed]])),
      () => rewriteDense(model, new Map([[0, unstackWeights(reconstruct(mixed), mixed)]])),
    ]
  ) {
    const error = assertThrows(run, TuckerdError);
    assertEquals(message.test(error.message), true, error.message);
  }
});

Deno.test("grouped heads that something else reads are refused below stack rank 4: it would find other heads", async () => {
  const seed = testSeed();
  const original = await loadModel(oracleExports("llama-gqa").find(({ file }) => file === "onnx/model.onnx")!.path);
  const graph = original.proto.graph!;
  const [values] = graph.node.find(({ name }) => /layers\.0\/self_attn\/v_proj\/MatMul$/.test(name))!.output as [
    string,
  ];
  const extra = makeNode("ReduceMean", [values], ["values.mean"], {
    name: "mean",
    attributes: { axes: [-1n], keepdims: 1n },
  });
  const output = [...graph.output, tensorInfo("values.mean", DataType.FLOAT, ["b", "t", 1])];
  const edited = withFields(graph, { node: [...graph.node, extra], output });
  const model = { ...original, proto: withFields(original.proto, { graph: edited }) };
  assertMatch(findAttention(model).blocks[0]!.valueOutputExpandedBecause!, /^ReduceMean \(mean\) reads .* too$/);

  factored(model, new Map([[0, projected(model, 4, seeded(seed))]]));
  const mixed = projected(model, 3, seeded(seed));
  const message =
    /^the value heads of .* can't become one for each query head, since mean reads them too: keep the stack rank at 4$/;
  for (
    const run of [
      () => factored(model, new Map([[0, mixed]])),
      () => rewriteDense(model, new Map([[0, unstackWeights(reconstruct(mixed), mixed)]])),
    ]
  ) assertMatch(assertThrows(run, TuckerdError).message, message);
});

/**
 * Falcon, whose graph repeats key and value heads before it does anything else with them, with a bias and a scale behind the first
 * layer's packed projection, and there the values' matrices equal to the keys': four matrices of stack rank 3.
 */
async function shiftedRepeats(random: () => number): Promise<OnnxModel> {
  const original = await loadModel(oracleExports("falcon-new")[0]!.path);
  const graph = original.proto.graph!;
  const projection = graph.node.find(({ input }) => input[1] === "permute")!;
  const [packed] = projection.output as [string];
  // Columns are [2 groups, 2 query heads and a key and a value head, 8 numbers].
  const weights = readFloats(graph.initializer.find(({ name }) => name === "permute")!, original.folder).slice();
  const columns = 2 * 4 * 8;
  for (let i = 0; i < weights.length; i++) {
    if (Math.floor(i % columns / 8) % 4 === 3) weights[i] = weights[i - 8]!;
  }
  const bias = Float32Array.from({ length: columns }, () => random() - 0.5);
  const initializer = [
    ...graph.initializer.filter(({ name }) => name !== "permute"),
    floatTensor("permute", [32, columns], weights),
    floatTensor("packed.factor", [], Float32Array.of(1.5)),
    floatTensor("packed.shift", [columns], bias),
  ];
  const nodes = [
    withFields(projection, { output: ["packed.plain"] }),
    makeNode("Mul", ["packed.plain", "packed.factor"], ["packed.scaled"]),
    makeNode("Add", ["packed.scaled", "packed.shift"], [packed]),
  ];
  const node = graph.node.flatMap((each) => each === projection ? nodes : [each]);
  return { ...original, proto: withFields(original.proto, { graph: withFields(graph, { node, initializer }) }) };
}

Deno.test("heads that a graph repeats at once keep their scale and their own biases at stack rank 3", async () => {
  const seed = testSeed();
  const model = await shiftedRepeats(seeded(seed));
  const { weights } = extractWeights(model, findAttention(model).blocks[0]!);
  const { hiddenSize: d, headSize: h, heads } = weights;
  const identity = (n: number): Float64Array =>
    Float64Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 1 : 0);
  const half = Math.SQRT1_2; // key and value are one direction of the stack
  const u3 = Float64Array.of(1, 0, 0, 0, half, 0, 0, half, 0, 0, 0, 1);
  const given = { d, h, heads, data: stackWeights(weights) };
  const { model: rewritten, feeds } = factored(
    model,
    new Map([[0, projectOnto(given, { u1: identity(d), u2: identity(h), u3 })]]),
  );
  await using originalSession = await TestSession.load(model);
  await using session = await TestSession.load(rewritten);
  const { inputs } = oracleReference("falcon-new").cases[0]!;
  const expected = (await originalSession.run(inputs))["logits"]!.data;
  const actual = (await session.run(inputs, feeds))["logits"]!.data;
  assertNear(actual, expected, { atol: 1e-4 * largestValue(expected), rtol: 0, what: `seed ${seed}` });
});
