/**
 * What can't be compressed, or not in the small space, is left exact and told with its reason: RoBERTa's graph with one thing
 * changed at a time.
 */
import { assert, assertEquals, assertMatch } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { findAttention } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { GraphProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertExact, behind, changed, node, original, SELF } from "../support/edited_roberta.ts";

Deno.test("a soft cap keeps query and key expanded where the key has a bias", async () => {
  const model = changed(new Map([behind(node("MatMul"), "Tanh")]));
  const [first, second] = findAttention(model).blocks;
  assertMatch(first!.queryKeyExpandedBecause!, /^Tanh .* bends the scores, so the key bias doesn't cancel$/);
  assertEquals(first!.valueOutputExpandedBecause, undefined);
  assertEquals(second!.queryKeyExpandedBecause, undefined);
  await assertExact(model);
});

Deno.test("factors after the softmax keep the value's bias inside", async () => {
  const model = changed(new Map([behind(node("Softmax"), "Mul", ["half"])]), { scalars: { half: 0.5 } });
  const [first] = findAttention(model).blocks;
  assertEquals([first!.valueOutputExpandedBecause, first!.valueBiasInside], [undefined, true]);
  assertEquals(first!.queryKeyExpandedBecause, undefined);
  await assertExact(model);
});

Deno.test("scales and shifts anywhere on the way are exact in the small space", async () => {
  const model = changed(
    new Map([
      behind(node("query/MatMul"), "Mul", ["three"]),
      behind(node("key/Add"), "Div", ["minusTwo"]),
      behind(node("value/Add"), "Mul", ["three"]),
      behind(node("MatMul_1"), "Div", ["minusTwo"]),
    ]),
    { scalars: { three: 3, minusTwo: -2 } },
  );
  const [first] = findAttention(model).blocks;
  assertEquals([first!.queryKeyExpandedBecause, first!.valueOutputExpandedBecause], [undefined, undefined]);
  await assertExact(model);
});

Deno.test("products that ONNX Runtime's optimiser fused with a transposition and a scale are read through", async () => {
  const product = node("MatMul");
  const [query, key] = product.input as [string, string];
  const upright = makeNode("Transpose", [key], ["upright"], { attributes: { perm: [0n, 1n, 3n, 2n] } });
  const fused = { domain: "com.microsoft", attributes: { transB: 1n, alpha: 0.7 } };
  const projection = node("query/MatMul");
  const model = changed(
    new Map([
      [product, [upright, makeNode("FusedMatMul", [query, "upright"], product.output, fused)]],
      [projection, [
        makeNode("Transpose", [projection.input[1]!], ["flipped"], { attributes: { perm: [1n, 0n] } }),
        makeNode("FusedMatMul", [projection.input[0]!, "flipped"], projection.output, fused),
      ]],
    ]),
  );
  const [first] = findAttention(model).blocks;
  assertEquals([first!.queryKeyExpandedBecause, first!.valueOutputExpandedBecause], [undefined, undefined]);
  await assertExact(model);
});

Deno.test("constants that can't be worked out keep a block expanded, not unfound", async () => {
  // What rotations look like in graphs of fixed sizes: tables computed from constants by operators without end.
  const table = makeNode("Cos", ["half"], ["table"]);
  const model = changed(
    new Map([[node("query/Add"), [...behind(node("query/Add"), "Mul", ["table"])[1], table]]]),
    { scalars: { half: 0.5 } },
  );
  const [first] = findAttention(model).blocks;
  assertMatch(first!.queryKeyExpandedBecause!, /^query: Mul .* changes it$/);
  await assertExact(model);
});

Deno.test("a query that the model gives out is kept whole", async () => {
  const { output: [query] } = node("query/Add");
  const model = changed(new Map(), { outputs: [query!] });
  const [first] = findAttention(model).blocks;
  assertEquals(first!.queryKeyExpandedBecause, `the model gives ${query} out`);
  assertEquals(first!.valueOutputExpandedBecause, undefined);
  await assertExact(model);
});

Deno.test("a value that something else reads is kept whole", async () => {
  const { output: [value] } = node("value/Add");
  const extra = makeNode("ReduceMean", [value!], ["mean"], { attributes: { axes: [1n], keepdims: 1n } });
  const model = changed(new Map([[node("value/Add"), [node("value/Add"), extra]]]), { outputs: ["mean"] });
  const [first] = findAttention(model).blocks;
  assertMatch(first!.valueOutputExpandedBecause!, /^ReduceMean \(mean\) reads .* too$/);
  assertEquals(first!.queryKeyExpandedBecause, undefined);
  await assertExact(model);
});

Deno.test("blocks that can't be followed are skipped, each with its reason, and the others stay", () => {
  const softmax = node("Softmax");
  const query = node("query/MatMul");
  const cases: [string, OnnxModel, RegExp][] = [
    [
      "another axis",
      changed(
        new Map([[softmax, [
          makeNode("Softmax", softmax.input, softmax.output, { name: softmax.name, attributes: { axis: 1n } }),
        ]]]),
      ),
      /^it runs over axis 1 of \[2,4,3,3\], attention's runs over the last$/,
    ],
    [
      "weights from outside",
      changed(new Map([[query, [withFields(query, { input: [query.input[0]!, "fresh_weights"] })]]])),
      /^the query can't be followed/,
    ],
    [
      "an operator nobody knows",
      changed(new Map([behind(node("value/Add"), "Mystery")])),
      /^the value can't be followed: its shape isn't known$/,
    ],
    [
      "no product behind",
      changed(new Map([[node("MatMul_1"), [withFields(node("MatMul_1"), { opType: "Mystery" })]]])),
      /^its result doesn't reach a product with a value$/,
    ],
  ];
  for (const [what, model, reason] of cases) {
    const { blocks, skipped } = findAttention(model);
    const [first] = skipped;
    assert(reason.test(first?.reason ?? ""), `${what}: ${JSON.stringify(skipped)}`);
    assertEquals([first?.node, first?.operator], [`${SELF}/Softmax`, "Softmax"]);
    assertEquals(blocks.length + skipped.length, 2, what);
  }
});

Deno.test("a softmax behind a projection is no attention: a router, a classifier", () => {
  const query = node("query/MatMul");
  const router = [
    makeNode("MatMul", query.input, ["routes"], { name: "router" }),
    makeNode("Softmax", ["routes"], ["weights"], { name: "routing" }),
  ];
  const { skipped } = findAttention(changed(new Map([[query, [query, ...router]]]), { outputs: ["weights"] }));
  assertEquals(skipped.find(({ node }) => node === "routing"), {
    node: "routing",
    operator: "Softmax",
    reason: "it follows the projection router (of a router or a classifier, say), not a product of a query and a key",
  });
});

Deno.test("a block whose matrix is used elsewhere too is left alone", () => {
  const query = node("query/MatMul");
  const again = makeNode("MatMul", query.input, ["again"], { name: "elsewhere" });
  const { blocks, skipped } = findAttention(changed(new Map([[query, [query, again]]]), { outputs: ["again"] }));
  assertEquals(blocks.map(({ name }) => name), ["roberta.encoder.layer.1.attention"]);
  assertMatch(skipped[0]!.reason, /^elsewhere uses its matrix .* too, and isn't part of a block that was found$/);
});

Deno.test("a projection that is key and value at once is left alone: its two reconstructions differ", () => {
  const value = node("value/Add");
  const shared = withFields(value, {
    input: value.input.map((name) => name === node("value/MatMul").output[0] ? node("key/MatMul").output[0]! : name),
  });
  const { blocks, skipped } = findAttention(changed(new Map([[value, [shared]]])));
  assertEquals(blocks.map(({ name }) => name), ["roberta.encoder.layer.1.attention"]);
  assertMatch(skipped[0]!.reason, /^its value projection .*key\/MatMul is its key projection too$/);
});

Deno.test("positions in an order that is none of axes keep a block expanded", async () => {
  const names = ["query", "key", "value"];
  const reverse = (from: string, to: string): NodeProto =>
    makeNode("Slice", [from, "last", "beforeFirst", "second", "last"], [to]);
  const turned = names.map((name, i): [NodeProto, NodeProto[]] => {
    const projection = node(`${name}/MatMul`);
    const [input, matrix] = projection.input as [string, string];
    return [projection, [
      ...i === 0 ? [reverse(input, "reversed")] : [],
      withFields(projection, { input: ["reversed", matrix], output: [`${name}.reversed`] }),
      reverse(`${name}.reversed`, projection.output[0]!),
    ]];
  });
  const tensors = [int64Tensor("last", [-1]), int64Tensor("beforeFirst", [-(2 ** 31)]), int64Tensor("second", [1])];
  const model = changed(new Map(turned), { tensors });
  const [first, second] = findAttention(model).blocks;
  const reason = "the rows of its input reversed aren't those of [batch, positions] in any order of axes";
  assertEquals([first!.queryKeyExpandedBecause, first!.valueOutputExpandedBecause], [reason, reason]);
  assertEquals([second!.queryKeyExpandedBecause, second!.valueOutputExpandedBecause], [undefined, undefined]);
  await assertExact(model);
});

Deno.test("heads whose positions stand in orders of their own keep a block expanded", async () => {
  const context = node("MatMul_1");
  const [probabilities, value] = context.input as [string, string];
  const cut = (name: string, from: string, to: string): NodeProto =>
    makeNode("Slice", [value, from, to, "second"], [name]);
  const model = changed(
    new Map([[context, [
      cut("heads", "none", "fourth"),
      cut("head", "fourth", "all"),
      makeNode("Slice", ["head", "last", "beforeFirst", "third", "last"], ["head.reversed"]),
      makeNode("Concat", ["heads", "head.reversed"], ["value.mixed"], { attributes: { axis: 1n } }),
      withFields(context, { input: [probabilities, "value.mixed"] }),
    ]]]),
    {
      tensors: [
        ...[int64Tensor("last", [-1]), int64Tensor("beforeFirst", [-(2 ** 31)]), int64Tensor("none", [0])],
        ...[
          int64Tensor("second", [1]),
          int64Tensor("third", [2]),
          int64Tensor("fourth", [3]),
          int64Tensor("all", [1000]),
        ],
      ],
    },
  );
  const [first] = findAttention(model).blocks;
  assertEquals(first!.queryKeyExpandedBecause, undefined);
  assertMatch(first!.valueOutputExpandedBecause!, /aren't those of \[batch, positions\] in any order of axes$/);
  await assertExact(model);
});

Deno.test("scores of five dimensions keep a block expanded", async () => {
  const [scores, softmax, context] = [node("MatMul"), node("Softmax"), node("MatMul_1")];
  const [query, key] = scores.input as [string, string];
  const [probabilities, value] = context.input as [string, string];
  const deeper = (name: string): NodeProto => makeNode("Unsqueeze", [name, "third"], [`${name}.deep`]);
  const added = original.proto.graph!.node.find(({ input }) => input.includes(scores.output[0]!))!;
  const mask = added.input.find((name) => name !== scores.output[0]!)!;
  const model = changed(
    new Map([
      [scores, [deeper(query), deeper(key), makeNode("MatMul", [`${query}.deep`, `${key}.deep`], scores.output)]],
      [added, [
        deeper(mask),
        withFields(added, { input: added.input.map((name) => name === mask ? `${mask}.deep` : name) }),
      ]],
      [context, [
        deeper(value),
        makeNode("MatMul", [probabilities, `${value}.deep`], ["context.deep"]),
        makeNode("Squeeze", ["context.deep", "third"], context.output),
      ]],
    ]),
    { tensors: [int64Tensor("third", [2])] },
  );
  assertEquals(softmax.output[0], probabilities);
  const [first] = findAttention(model).blocks;
  assertMatch(first!.queryKeyExpandedBecause!, /^its scores .* have shape \[2,4,1,3,3\], not \[batch, heads/);
  assertMatch(first!.valueOutputExpandedBecause!, /^its probabilities .* have shape \[2,4,1,3,3\], not/);
  await assertExact(model);
});

Deno.test("tensors of types that hold no numbers here don't stand in the way", () => {
  const graph = original.proto.graph!;
  const FLOAT8 = 17;
  const strange = withFields(floatTensor("strange", [4], new Float32Array(4)), {
    dataType: FLOAT8,
    rawData: new Uint8Array(4),
  });
  const edited = withFields(graph, { initializer: [...graph.initializer, strange] });
  const { blocks } = findAttention({ ...original, proto: withFields(original.proto, { graph: edited }) });
  assertEquals(blocks.length, 2);
});

Deno.test("a graph without attention has no blocks, and every softmax with a reason", () => {
  const graph = withFields(original.proto.graph!, {
    node: [makeNode("Softmax", ["input_ids"], ["y"], { name: "classes" })],
    output: [tensorInfo("y", DataType.FLOAT, ["b", "t"])],
  });
  const { blocks, skipped } = findAttention({ ...original, proto: withFields(original.proto, { graph }) });
  assertEquals(blocks, []);
  assertEquals(skipped, [{
    node: "classes",
    operator: "Softmax",
    reason: "no product of two projections leads to it",
  }]);
});

Deno.test("operators that do attention and aren't known are told, whatever their domain", () => {
  const { output: [query] } = node("query/Add");
  const operators = [
    "com.microsoft.PagedAttention",
    "com.microsoft.BiasSoftmax",
    "LinearAttention",
    "models.own.Attention",
  ];
  const extra = operators.map((operator): NodeProto => {
    const [opType, ...domain] = operator.split(".").toReversed() as [string, ...string[]];
    return makeNode(opType, [query!, query!], [`${operator}.result`], { domain: domain.toReversed().join(".") });
  });
  const model = changed(new Map([[node("query/Add"), [node("query/Add"), ...extra]]]), {
    outputs: operators.map((operator) => `${operator}.result`),
  });
  const { skipped } = findAttention(model);
  assertEquals(skipped.map(({ operator, reason }) => [operator, reason]), [
    ["com.microsoft.PagedAttention", "com.microsoft.PagedAttention isn't taken apart yet"],
    ["com.microsoft.BiasSoftmax", "com.microsoft.BiasSoftmax isn't taken apart yet"],
    [
      "LinearAttention",
      "LinearAttention has no softmax: its queries meet a state that keys and values were added up in",
    ],
    ["models.own.Attention", "models.own.Attention isn't taken apart yet"],
  ]);
});

Deno.test("channels that attend to channels are told as that", () => {
  const [D, H, SIZE] = [12, 3, 4];
  const matrix = (name: string): TensorProto => floatTensor(name, [D, D], new Float32Array(D * D).fill(0.1));
  const upright = { attributes: { perm: [0n, 2n, 3n, 1n] } };
  const graph = create(GraphProtoSchema, {
    name: "channels",
    node: [
      ...["q", "k", "v"].flatMap((name) => [
        makeNode("MatMul", ["x", `w.${name}`], [name]),
        makeNode("Reshape", [name, "split"], [`${name}.heads`]),
        makeNode("Transpose", [`${name}.heads`], [`${name}.channels`], upright),
      ]),
      makeNode("Transpose", ["k.channels"], ["k.across"], { attributes: { perm: [0n, 1n, 3n, 2n] } }),
      makeNode("MatMul", ["q.channels", "k.across"], ["scores"]),
      makeNode("Softmax", ["scores"], ["probabilities"], { name: "softmax", attributes: { axis: -1n } }),
      makeNode("MatMul", ["probabilities", "v.channels"], ["context"]),
      makeNode("Transpose", ["context"], ["positions"], { attributes: { perm: [0n, 3n, 1n, 2n] } }),
      makeNode("Reshape", ["positions", "join"], ["joined"]),
      makeNode("MatMul", ["joined", "w.o"], ["y"]),
    ],
    initializer: [
      ...["w.q", "w.k", "w.v", "w.o"].map(matrix),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("join", [0, 0, D]),
    ],
    input: [tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D])],
    output: [tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D])],
  });
  const { blocks, skipped } = findAttention({ ...original, proto: withFields(original.proto, { graph }) });
  assertEquals(blocks, []);
  assertEquals(skipped.map(({ reason }) => reason), [
    "the query can't be followed: its matrices have a head's channels where attention has positions: " +
    "channels attend to channels",
  ]);
});
