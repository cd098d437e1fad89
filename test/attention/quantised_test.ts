/** QOperator files: attention is dequantised, everything else stays the operator that it is in the file. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { lower } from "../../src/attention/lower/lower.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { type GraphProto, makeNode, type NodeProto, operatorOf } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { assertNear } from "../support/close.ts";
import { changed, original } from "../support/edited_roberta.ts";
import { oracleFormats, oracleReference } from "../support/oracle.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { TestSession } from "../support/session.ts";

const U8 = DataType.UINT8;

/** A graph of x [2, 3, 4] (and y), quantised, one operator of com.microsoft or the standard, and its result dequantised. */
function graphOf(random: Random, operator: string): GraphProto {
  const [domain, opType] = operator.startsWith("Q") && operator !== "QLinearMatMul" || operator.startsWith("Dynamic") ||
      operator.startsWith("MatMul")
    ? ["com.microsoft", operator]
    : ["", operator];
  const initializer = [
    floatTensor("s", [], Float32Array.of(0.02)),
    floatTensor("t", [], Float32Array.of(1 / 64)),
    floatTensor("other", [], Float32Array.of(0.011)),
    floatTensor("columns", [5], Float32Array.from({ length: 5 }, () => 0.01 + random() / 50)),
    floatTensor("bias", [5], Float32Array.from({ length: 5 }, random)),
    bytes("z", [], () => 128),
    bytes("zeros", [5], () => integer(random, 100, 150)),
    bytes("W", [4, 5], () => integer(random, 0, 255)),
    bytes("Wt", [5, 4], () => integer(random, 0, 255)),
    int32("integers", Int32Array.from({ length: 5 }, () => integer(random, -9000, 9000))),
  ];
  const quantised = (name: string): NodeProto => makeNode("QuantizeLinear", [name, "s", "z"], [`${name}q`]);
  const inputs: Readonly<Record<string, readonly string[]>> = {
    QLinearMatMul: ["xq", "s", "z", "W", "columns", "zeros", "t", "z"],
    QLinearAdd: ["xq", "s", "z", "yq", "s", "z", "t", "z"],
    QLinearMul: ["xq", "s", "z", "yq", "s", "z", "t", "z"],
    QLinearSigmoid: ["xq", "s", "z", "t", "z"],
    QLinearLeakyRelu: ["xq", "s", "z", "t", "z"],
    QLinearSoftmax: ["xq", "s", "z", "t", "z"],
    QLinearConcat: ["t", "z", "xq", "s", "z", "yq", "other", "z"],
    QLinearWhere: ["condition", "xq", "s", "z", "yq", "s", "z", "t", "z"],
    DynamicQuantizeMatMul: ["x", "W", "columns", "zeros", "bias"],
    QGemm: ["xf", "s", "z", "Wt", "columns", "zeros", "integers", "t", "z"],
    MatMulIntegerToFloat: ["xq", "W", "s", "columns", "z", "zeros", "bias"],
  };
  const real = domain !== "" && opType.includes("MatMul");
  const attributes = opType === "QLinearLeakyRelu"
    ? { alpha: 0.3 }
    : opType === "QGemm"
    ? { alpha: 0.7, transB: 1n }
    : opType === "QLinearConcat"
    ? { axis: 1n }
    : opType === "QLinearSoftmax"
    ? { axis: -1n, opset: 17n }
    : {};
  const node = makeNode(opType, inputs[opType]!, [real ? "out" : "outq"], { domain, attributes });
  return create(GraphProtoSchema, {
    input: ["x", "y"].map((name) => tensorInfo(name, DataType.FLOAT, [2, 3, 4])),
    output: [tensorInfo("out", DataType.FLOAT, opType === "QGemm" ? ["a", "b"] : ["a", "b", "c"])],
    initializer,
    node: [
      quantised("x"),
      quantised("y"),
      makeNode("Greater", ["x", "y"], ["condition"]),
      makeNode("Flatten", ["xq"], ["xf"], { attributes: { axis: 2n } }),
      node,
      ...(real ? [] : [makeNode("DequantizeLinear", ["outq", "t", "z"], ["out"])]),
    ],
  });
}

function bytes(name: string, shape: readonly number[], make: () => number): ReturnType<typeof floatTensor> {
  const rawData = Uint8Array.from({ length: sizeOf(shape) }, make);
  return withFields(floatTensor(name, shape, new Float32Array(rawData.length)), { dataType: U8, rawData });
}

function int32(name: string, values: Int32Array): ReturnType<typeof floatTensor> {
  const rawData = new Uint8Array(values.buffer);
  return withFields(floatTensor(name, [values.length], new Float32Array(values.length)), {
    dataType: DataType.INT32,
    rawData,
  });
}

/**
 * Most that a result may be off, if not one step of its scale: where the operator rounds its own input, from −2 to 2, a step of 4/255 in
 * four terms with weights of at most 155 · 0.03; where nothing is rounded, float32's rounding of sums of about 20.
 */
const STEPS: Readonly<Record<string, number>> = {
  DynamicQuantizeMatMul: 4 / 255 * 4 * 4.65,
  MatMulIntegerToFloat: 1e-4,
};

for (
  const operator of [
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearSoftmax",
    "QLinearConcat",
    "QLinearWhere",
    "QGemm",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
  ]
) {
  Deno.test(`${operator} computes what its real counterpart does, to a step of its scale`, async () => {
    const random = seededRandom(operator);
    const graph = graphOf(random, operator);
    const opsetImport = [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }];
    const load = (proto: GraphProto): Promise<TestSession> =>
      TestSession.load({
        proto: create(ModelProtoSchema, { irVersion: 8n, graph: proto, opsetImport }),
        path: "one.onnx",
        folder: ".",
      });
    const lowered = lower(new Graph(graph), ".").graph.proto;
    assertEquals(lowered.node.filter((node) => operatorOf(node).includes(operator)), []);
    await using original = await load(graph);
    await using plain = await load(lowered);
    const values = (): Float64Array => Float64Array.from({ length: 24 }, () => random() * 4 - 2);
    const feeds = { x: { shape: [2, 3, 4], data: values() }, y: { shape: [2, 3, 4], data: values() } };
    const [expected, actual] = await Promise.all([original.run({}, feeds), plain.run({}, feeds)]);
    assertNear(actual["out"]!.data, expected["out"]!.data, {
      atol: STEPS[operator] ?? 1.001 / 64,
      rtol: 0,
      what: operator,
    });
  });
}

/** The nodes that multiply by the matrices of layer 1, and the rounding that only one of them reads. */
const CHANGED: Readonly<Record<string, readonly string[]>> = {
  qoperator: ["output/dense", "self/key", "self/query", "self/value"].map((place) =>
    `QLinearMatMul /roberta/encoder/layer.1/attention/${place}/MatMul_quant`
  ),
  qattention: [
    "DynamicQuantizeLinear /bert/encoder/layer.0/output/LayerNorm/Add_1_output_0_QuantizeLinear",
    "QLinearMatMul /bert/encoder/layer.1/attention/output/dense/MatMul_quant",
    "com.microsoft.QAttention Attention_1_quant",
  ],
};

for (const { model: name, format, path } of oracleFormats()) {
  if (format !== "qoperator" && format !== "qattention") continue;
  Deno.test(`${name}/${format}: what isn't rewritten stays the file's own operator`, async () => {
    const model = await loadModel(path);
    const { blocks, skipped } = findAttention(model);
    assertEquals(skipped, []);
    const rewritten = rewriteDense(model, new Map([[1, extractWeights(model, blocks[1]!).weights]]));
    const kept = new Set(rewritten.proto.graph!.node);
    const gone = model.proto.graph!.node.filter((node) => !kept.has(node)).map((node) =>
      `${operatorOf(node)} ${node.name}`
    );
    assertEquals(gone.sort(), CHANGED[format]);
  });
}

for (const [alpha, beta] of [[0.5, 2], [1, 1]] as const) {
  Deno.test(`a dense matrix between dequantisation and quantisation isn't rounded to 8 bits by ONNX Runtime, alpha ${alpha}`, () =>
    checkUnrounded(alpha, beta));
}

/** RoBERTa's first output projection as a Gemm between roundings, rewritten, against the same in operators that stay. */
async function checkUnrounded(alpha: number, beta: number): Promise<void> {
  const at = (name: string): NodeProto =>
    original.proto.graph!.node.find((each) => each.name === `/roberta/encoder/layer.0/attention/output/dense/${name}`)!;
  const [stream, weight] = at("MatMul").input as [string, string];
  const made = (...product: readonly NodeProto[]): OnnxModel =>
    changed(
      new Map([[at("MatMul"), [
        makeNode("QuantizeLinear", [stream, "step", "zero"], ["rounded"]),
        makeNode("DequantizeLinear", ["rounded", "step", "zero"], ["real"]),
        makeNode("Reshape", ["real", "rows"], ["flat"]),
        makeNode("QuantizeLinear", ["flat", "step", "zero"], ["flat.rounded"]),
        makeNode("DequantizeLinear", ["flat.rounded", "step", "zero"], ["read"]),
      ]], [at("Add"), [
        ...product,
        makeNode("QuantizeLinear", ["product", "step", "zero"], ["product.rounded"]),
        makeNode("DequantizeLinear", ["product.rounded", "step", "zero"], ["product.real"]),
        makeNode("Shape", [stream], ["shape"]),
        makeNode("Reshape", ["product.real", "shape"], [at("Add").output[0]!]),
      ]]]),
      {
        scalars: { step: 1 / 32, alpha, negative: -beta },
        tensors: [
          bytes("zero", [], () => 128),
          int64Tensor("rows", [-1, 32]),
          floatTensor("bias", [32], Float32Array.from({ length: 32 }, (_, i) => i / 40)),
        ],
      },
    );
  const gemm = made(makeNode("Gemm", ["read", weight, "bias"], ["product"], { attributes: { alpha, beta } }));
  const plain = made(
    makeNode("MatMul", ["read", weight], ["whole"]),
    makeNode("Mul", ["whole", "alpha"], ["scaled"]),
    makeNode("Mul", ["bias", "negative"], ["negative.bias"]),
    makeNode("Sub", ["scaled", "negative.bias"], ["product"]),
  );
  const [block] = findAttention(gemm).blocks;
  const rewritten = rewriteDense(gemm, new Map([[0, extractWeights(gemm, block!).weights]]));
  const { inputs } = oracleReference("roberta").cases[1]!;
  await using expectedSession = await TestSession.load(plain);
  await using session = await TestSession.load(rewritten);
  const [expected, actual] = [await expectedSession.run(inputs), await session.run(inputs)];
  for (const [name, { data }] of Object.entries(expected)) {
    assertNear(actual[name]!.data, data, { atol: 1e-5, rtol: 0, what: name });
  }
}
