/** Shapes of quantised operators that are read, but not as plain ones: those that ONNX Runtime's results have. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { PROBE } from "../../src/attention/trace/probe.ts";
import { ProbeRun } from "../../src/attention/trace/evaluate.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { TestSession } from "../support/session.ts";

const { FLOAT, INT32, UINT8 } = DataType;

function bytes(name: string, shape: readonly number[]): TensorProto {
  const rawData = new Uint8Array(sizeOf(shape)).fill(128);
  return withFields(floatTensor(name, shape, new Float32Array(rawData.length)), { dataType: UINT8, rawData });
}

const scalars = [floatTensor("s", [], Float32Array.of(0.1)), bytes("z", [])];

/** Asserts that a probe run gives every output of a node the shape that ONNX Runtime gives it. */
async function assertShapes(
  nodes: readonly NodeProto[],
  { initializer, inputs, outputs }: {
    readonly initializer: readonly TensorProto[];
    readonly inputs: Readonly<Record<string, readonly [type: number, shape: readonly number[]]>>;
    readonly outputs: Readonly<Record<string, readonly [type: number, rank: number]>>;
  },
): Promise<void> {
  const graph = create(GraphProtoSchema, {
    name: "shapes",
    node: [...nodes],
    initializer: [...scalars, ...initializer],
    input: Object.entries(inputs).map(([name, [type, shape]]) => tensorInfo(name, type, shape)),
    output: Object.entries(outputs).map(([name, [type, rank]]) =>
      tensorInfo(name, type, Array.from({ length: rank }, (_, i) => `${name}.${i}`))
    ),
  });
  const opsetImport = [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }];
  const proto = create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport });
  await using session = await TestSession.load({ proto, path: "", folder: "" });
  const feeds = Object.entries(inputs).map((
    [name, [, shape]],
  ) => [name, { shape, data: new Float32Array(sizeOf(shape)) }]);
  const results = await session.run({}, Object.fromEntries(feeds));
  const index = new Graph(graph);
  const run = new ProbeRun(index, PROBE, "");
  for (const name of Object.keys(outputs)) {
    assertEquals(run.value(index, name).shape, [...results[name]!.shape], name);
  }
}

for (
  const attributes of [
    {},
    { strides: [2n, 3n] },
    { pads: [1n, 0n, 2n, 3n], kernel_shape: [3n, 2n] },
    { strides: [2n, 1n], pads: [0n, 1n, 1n, 0n], dilations: [2n, 3n] },
  ]
) {
  const named = Object.entries(attributes).map(([name, values]) => `${name} ${values}`).join(", ");
  Deno.test(`QLinearConv${named === "" ? "" : ` with ${named}`} has ONNX Runtime's shape`, async () => {
    const inputs = ["xq", "s", "z", "w", "s", "z", "s", "z"];
    await assertShapes([
      makeNode("QuantizeLinear", ["x", "s", "z"], ["xq"]),
      makeNode("QLinearConv", inputs, ["yq"], { attributes }),
      makeNode("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ], {
      initializer: [bytes("w", [5, 4, 3, 2])],
      inputs: { x: [FLOAT, [2, 4, 11, 13]] },
      outputs: { y: [FLOAT, 4] },
    });
  });
}

Deno.test("QEmbedLayerNormalization has ONNX Runtime's shapes", async () => {
  const tables = ["words", "positions", "segments", "gamma", "beta"];
  const inputs = ["ids", "segment_ids", ...tables, "mask", ...tables.map(() => "s"), ...tables.map(() => "z")];
  await assertShapes([
    makeNode("QEmbedLayerNormalization", inputs, ["embedded", "lengths"], { domain: "com.microsoft" }),
  ], {
    initializer: [
      bytes("words", [9, 8]),
      bytes("positions", [7, 8]),
      bytes("segments", [2, 8]),
      bytes("gamma", [8]),
      bytes("beta", [8]),
    ],
    inputs: { ids: [INT32, [3, 5]], segment_ids: [INT32, [3, 5]], mask: [INT32, [3, 5]] },
    outputs: { embedded: [FLOAT, 3], lengths: [INT32, 1] },
  });
});
