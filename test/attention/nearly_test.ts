/**
 * Graphs that are attention nearly, but not quite: RoBERTa's with what newer models do. Each must be exact, or left alone with
 * a reason that is true.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { assertNear } from "../support/close.ts";
import { assertExact, behind, changed, node, original } from "../support/edited_roberta.ts";
import { oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

const numbers = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => 0.3 + (i * 7 % 11) / 5);

Deno.test("a query with a temperature for each position runs expanded", async () => {
  const query = node("query/Add");
  const model = changed(
    new Map([[query, [
      makeNode("Cast", ["input_ids"], ["positions"], { attributes: { to: BigInt(DataType.FLOAT) } }),
      makeNode("Div", ["positions", "hundred"], ["small"]),
      makeNode("Unsqueeze", ["small", "last"], ["temperature"]),
      ...behind(query, "Mul", ["temperature"])[1],
    ]]]),
    { scalars: { hundred: 100 }, tensors: [int64Tensor("last", [-1])] },
  );
  const [first] = findAttention(model).blocks;
  assertMatch(first!.queryKeyExpandedBecause!, /^query: Mul .* changes it$/);
  assertEquals(first!.valueOutputExpandedBecause, undefined);
  await assertExact(model);
});

Deno.test("heads with a constant gain for every element run expanded", async () => {
  for (const [name, part] of [["query/Add", "queryKey"], ["key/Add", "queryKey"], ["value/Add", "valueOutput"]]) {
    const model = changed(new Map([behind(node(name!), "Mul", ["gains"])]), {
      tensors: [floatTensor("gains", [32], numbers(32))],
    });
    const [first] = findAttention(model).blocks;
    assertMatch(first![`${part as "queryKey" | "valueOutput"}ExpandedBecause`]!, /its elements have different scales$/);
    await assertExact(model);
  }
});

Deno.test("an attention sink, one more column in the softmax, keeps the terms of both biases", async () => {
  const softmax = node("Softmax");
  const [scores] = softmax.input as [string];
  const [probabilities] = softmax.output as [string];
  const model = changed(
    new Map([[softmax, [
      makeNode("ReduceMax", [scores], ["largest"], { attributes: { axes: [-1n], keepdims: 1n } }),
      makeNode("Mul", ["largest", "zero"], ["column"]),
      makeNode("Add", ["column", "sinks"], ["sink"]),
      makeNode("Concat", [scores, "sink"], ["with.sink"], { name: "join", attributes: { axis: -1n } }),
      makeNode("Softmax", ["with.sink"], ["all"], { name: softmax.name, attributes: { axis: -1n } }),
      makeNode("Slice", ["all", "start", "end", "axis"], [probabilities], { name: "cut" }),
    ]]]),
    {
      scalars: { zero: 0 },
      tensors: [
        floatTensor("sinks", [1, 4, 1, 1], Float32Array.of(1, -1, 2, 0.5)),
        int64Tensor("start", [0]),
        int64Tensor("end", [-1]),
        int64Tensor("axis", [3]),
      ],
    },
  );
  const [first] = findAttention(model).blocks;
  assertMatch(first!.queryKeyExpandedBecause!, /^Concat \(join\) .* bends the scores, so the key bias doesn't cancel$/);
  assertEquals([first!.valueOutputExpandedBecause, first!.valueBiasInside], [undefined, true]);
  await assertExact(model);
});

Deno.test("probabilities that something hides after the softmax keep the value's bias where it is", async () => {
  const softmax = node("Softmax");
  const [probabilities] = softmax.output as [string];
  const model = changed(
    new Map([[softmax, [
      withFields(softmax, { output: ["shown"] }),
      makeNode("Less", ["shown", "least"], ["hidden"]),
      makeNode("Where", ["hidden", "zero", "shown"], [probabilities], { name: "threshold" }),
    ]]]),
    { scalars: { least: 0.08, zero: 0 } },
  );
  const [first] = findAttention(model).blocks;
  assertEquals([first!.valueOutputExpandedBecause, first!.valueBiasInside], [undefined, true]);
  await assertExact(model);
});

Deno.test("a guard against rows of NaN doesn't", async () => {
  const softmax = node("Softmax");
  const [probabilities] = softmax.output as [string];
  const model = changed(
    new Map([[softmax, [
      withFields(softmax, { output: ["shown"] }),
      makeNode("IsNaN", ["shown"], ["hidden"]),
      makeNode("Where", ["hidden", "zero", "shown"], [probabilities], { name: "guard" }),
    ]]]),
    { scalars: { zero: 0 } },
  );
  const [first] = findAttention(model).blocks;
  assertEquals([first!.valueOutputExpandedBecause, first!.valueBiasInside], [undefined, undefined]);
  await assertExact(model);
});

Deno.test("differential attention is left alone: its two softmaxes share a value", async () => {
  const softmax = node("Softmax");
  const [scores] = softmax.input as [string];
  const [probabilities] = softmax.output as [string];
  const model = changed(
    new Map([[softmax, [
      withFields(softmax, { output: ["first"] }),
      makeNode("Mul", [scores, "half"], ["other.scores"]),
      makeNode("Softmax", ["other.scores"], ["second"], { name: "second", attributes: { axis: -1n } }),
      makeNode("Mul", ["second", "half"], ["subtracted"]),
      makeNode("Sub", ["first", "subtracted"], [probabilities]),
    ]]]),
    { scalars: { half: 0.5 } },
  );
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, skipped.length], [1, 2]);
  for (const { reason } of skipped) {
    assertMatch(reason, /^its query projection .*query\/MatMul is the query projection of .* too$/);
  }
  await assertExact(model);
});

Deno.test("one softmax over two values is left alone, as differential attention is exported too", async () => {
  const product = node("MatMul_1");
  const [probabilities, value] = product.input as [string, string];
  const [context] = product.output as [string];
  const model = changed(
    new Map([[product, [
      withFields(product, { output: ["first.context"], name: "first" }),
      makeNode("Mul", [value, "half"], ["other.value"]),
      makeNode("MatMul", [probabilities, "other.value"], ["second.context"], { name: "second" }),
      makeNode("Sub", ["first.context", "second.context"], [context]),
    ]]]),
    { scalars: { half: 0.5 } },
  );
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, skipped.length], [1, 1]);
  assertEquals(skipped[0]!.reason, "its result meets 2 values, in first and second");
  await assertExact(model);
});

Deno.test("talking heads, mixed by a matrix before or after the softmax, are left alone", async () => {
  const mixed = (name: string): ReturnType<typeof makeNode>[] => {
    const [first] = node(name).output as [string];
    return [
      withFields(node(name), { output: ["unmixed"] }),
      makeNode("Transpose", ["unmixed"], ["heads.last"], { attributes: { perm: [0n, 2n, 3n, 1n] } }),
      makeNode("MatMul", ["heads.last", "mixture"], ["mixed"], { name: "talking" }),
      makeNode("Transpose", ["mixed"], [first], { attributes: { perm: [0n, 3n, 1n, 2n] } }),
    ];
  };
  const tensors = [floatTensor("mixture", [4, 4], numbers(16))];
  for (
    const [name, reason] of [
      ["MatMul", /^it follows the projection talking \(of a router or a classifier, say\), not a product/],
      ["Softmax", /^its result doesn't reach a product with a value$/],
    ] as const
  ) {
    const model = changed(new Map([[node(name), mixed(name)]]), { tensors });
    const { blocks, skipped } = findAttention(model);
    assertEquals([blocks.length, skipped.length], [1, 1]);
    assertMatch(skipped[0]!.reason, reason);
    await assertExact(model);
  }
});

Deno.test("heads joined from parts that several projections make are left alone: a latent key with a rotated part", async () => {
  // The key's second half comes from the value's projection, as parts of multi-head latent attention do.
  const key = node("key/Add");
  const [keys] = key.output as [string];
  const nodes = [
    withFields(key, { output: ["key.before"] }),
    ...["key.before", node("value/Add").output[0]!].map((name, i) =>
      makeNode("Reshape", [name, "by.head"], [`heads.${i}`])
    ),
    makeNode("Slice", ["heads.0", "start", "middle", "axis"], ["part.0"]),
    makeNode("Slice", ["heads.1", "middle", "end", "axis"], ["part.1"]),
    makeNode("Concat", ["part.0", "part.1"], ["heads"], { attributes: { axis: 3n } }),
    makeNode("Reshape", ["heads", "joined"], [keys]),
  ];
  const model = changed(new Map([[key, nodes]]), {
    tensors: [
      int64Tensor("by.head", [0, 0, 4, 8]),
      int64Tensor("joined", [0, 0, 32]),
      int64Tensor("start", [0]),
      int64Tensor("middle", [4]),
      int64Tensor("end", [8]),
      int64Tensor("axis", [3]),
    ],
  });
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks.length, 1);
  assertMatch(skipped[0]!.reason, /^the key can't be followed: its heads are joined from parts: .*key.*, .*value/);
  await assertExact(model);
});

/** The joined context of the first attention, head sizes before heads, and what reads it. */
function heightsFirst(behindIt: (joined: string, result: string) => NodeProto[]): OnnxModel {
  const join = node("Reshape_3");
  const [split, shape] = join.input as [string, string];
  return changed(
    new Map([[join, [
      makeNode("Transpose", [split], ["flipped"], { attributes: { perm: [0n, 1n, 3n, 2n] } }),
      makeNode("Reshape", ["flipped", shape], ["joined"]),
      ...behindIt("joined", join.output[0]!),
    ]]]),
    {
      tensors: [floatTensor("gate.weight", [32, 32], Float32Array.from(numbers(1024), (x) => x - 1))],
      scalars: { two: 2 },
    },
  );
}

const gated = (joined: string, result: string): NodeProto[] => [
  makeNode("MatMul", [node("query/MatMul").input[0]!, "gate.weight"], ["gate"]),
  makeNode("Sigmoid", ["gate"], ["open"]),
  makeNode("Mul", ["open", joined], [result], { name: "gated" }),
];

const normed = (joined: string, result: string): NodeProto[] => [
  makeNode("Pow", [joined, "two"], ["squares"]),
  makeNode("ReduceMean", ["squares"], ["square"], { attributes: { axes: [-1n], keepdims: 1n } }),
  makeNode("Sqrt", ["square"], ["length"]),
  makeNode("Div", [joined, "length"], [result], { name: "normed" }),
];

for (const [what, between] of [["gate", gated], ["norm", normed]] as const) {
  Deno.test(`a ${what} before the output projection: its rows are those that the graph says`, async () => {
    const model = heightsFirst(between);
    const [block] = findAttention(model).blocks;
    assertMatch(block!.valueOutputExpandedBecause!, /^output: (Mul \(gated\)|Div \(normed\)) changes it$/);
    const { weights } = extractWeights(model, block!);
    const stored = extractWeights(original, findAttention(original).blocks[0]!).weights.output;
    const rows = (matrix: Float32Array, row: number): number[] => [...matrix.subarray(row * 32, (row + 1) * 32)];
    for (let head = 0; head < 4; head++) {
      for (let j = 0; j < 8; j++) assertEquals(rows(weights.output, head * 8 + j), rows(stored, j * 4 + head));
    }
    await using before = await TestSession.load(model);
    await using after = await TestSession.load(rewriteDense(model, new Map([[0, weights]])));
    const { inputs } = oracleReference("roberta").cases[1]!;
    const [expected, actual] = [await before.run(inputs), await after.run(inputs)];
    for (const [name, { data }] of Object.entries(expected)) {
      assertNear(actual[name]!.data, data, { atol: 1e-5, rtol: 0, what: name });
    }
    await assertExact(model);
  });
}

Deno.test("a context that is multiplied by itself in another order is left alone", () => {
  const model = heightsFirst((joined, result) => [
    makeNode("Reshape", [node("Reshape_3").input[0]!, node("Reshape_3").input[1]!], ["straight"]),
    makeNode("Mul", [joined, "straight"], [result], { name: "mixed" }),
  ]);
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks.length, 1);
  assertMatch(
    skipped[0]!.reason,
    /^between the context and its output projection, .*, and Mul \(mixed\) mixes its elements$/,
  );
});
