/**
 * Quantised operators (ONNX Runtime's QOperator format) as their real counterparts, between dequantisation of what they read
 * and quantisation of what they give:
 *
 *     QLinearMatMul(a, b)              →  QuantizeLinear(MatMul(DequantizeLinear(a), DequantizeLinear(b)))
 *     QAttention(x, W)                 →  Attention(DequantizeLinear(x), DequantizeLinear(W))
 *     DynamicQuantizeMatMul(x, W)      →  MatMul(x, DequantizeLinear(W))
 *
 * What was rounded from real numbers for the operator alone (DynamicQuantizeLinear) is read before that. Operators and the order
 * of their inputs after the operator documentation of ONNX Runtime (ContribOperators.md).
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import { floatAttribute, intAttribute, makeNode, nodeName, type NodeProto } from "../../onnx/node.ts";
import { floatTensor, sizeOf } from "../../onnx/tensor.ts";
import type { Rule, Surroundings } from "./rule.ts";

/** Where an operator has a quantised value: the value, its scale, its zero point. */
type Place = readonly [value: number, scale: number, zeroPoint: number];

/** An operator whose real counterpart takes its values in the same order, and whose result is quantised. */
interface Counterpart {
  readonly opType: string;
  readonly values: readonly Place[];
  /** Inputs that aren't quantised, before the others. */
  readonly steering?: readonly number[];
  /** Scale and zero point of the result. */
  readonly result: readonly [scale: number, zeroPoint: number];
  readonly attributes?: readonly string[];
}

const UNARY = { values: [[0, 1, 2]], result: [3, 4] } as const;
const BINARY = { values: [[0, 1, 2], [3, 4, 5]], result: [6, 7] } as const;

const COUNTERPARTS: Readonly<Record<string, Counterpart>> = {
  "QLinearMatMul": { opType: "MatMul", ...BINARY },
  "com.microsoft.QLinearAdd": { opType: "Add", ...BINARY },
  "com.microsoft.QLinearMul": { opType: "Mul", ...BINARY },
  "com.microsoft.QLinearSigmoid": { opType: "Sigmoid", ...UNARY },
  "com.microsoft.QLinearLeakyRelu": { opType: "LeakyRelu", ...UNARY, attributes: ["alpha"] },
  "com.microsoft.QLinearSoftmax": { opType: "Softmax", ...UNARY, attributes: ["axis"] },
  "com.microsoft.QLinearWhere": { opType: "Where", steering: [0], values: [[1, 2, 3], [4, 5, 6]], result: [7, 8] },
};

/** The rules of quantised operators. */
export const QUANTISED: Readonly<Record<string, Rule>> = {
  ...Object.fromEntries(
    Object.entries(COUNTERPARTS).map(([name, counterpart]): [string, Rule] => [
      name,
      (node, at) => lowerCounterpart(node, at, counterpart),
    ]),
  ),
  "com.microsoft.QLinearConcat": (node, at) => lowerCounterpart(node, at, concatOf(node)),
  "com.microsoft.QGemm": lowerGemm,
  "com.microsoft.QAttention": lowerAttention,
  "com.microsoft.DynamicQuantizeMatMul": (node, at) =>
    lowerProduct(node, at, { matrix: [1, 2, 3], bias: 4, stream: () => node.input[0]! }),
  "com.microsoft.MatMulIntegerToFloat": (node, at) =>
    lowerProduct(node, at, {
      matrix: [1, 3, 5],
      bias: 6,
      stream: (nodes) => real(at, nodes, { node, place: [0, 2, 4] }),
    }),
};

/** com.microsoft.QLinearConcat: scale and zero point of the result, then those of every value behind it. */
function concatOf({ input }: NodeProto): Counterpart {
  const values = Array.from({ length: (input.length - 2) / 3 }, (_, i): Place => [3 * i + 2, 3 * i + 3, 3 * i + 4]);
  return { opType: "Concat", values, result: [0, 1], attributes: ["axis"] };
}

function lowerCounterpart(
  node: NodeProto,
  at: Surroundings,
  { opType, values, steering = [], result, attributes = [] }: Counterpart,
): readonly NodeProto[] | undefined {
  const nodes: NodeProto[] = [];
  const read = values.map((place) => real(at, nodes, { node, place: place }));
  const [scale, zeroPoint] = result.map((index) => node.input[index] ?? "");
  if (!read.every((value) => value !== undefined) || !scale) return undefined;
  const inputs = [...steering.map((index) => node.input[index]!), ...read];
  const computed = at.fresh(`${node.output[0]}.real`);
  const counterpart = makeNode(opType, inputs, [computed], { name: nodeName(node) });
  const attribute = node.attribute.filter(({ name }) => attributes.includes(name));
  nodes.push(withFields(counterpart, { attribute }));
  return [...nodes, quantisation(at, node, [computed, scale, zeroPoint ?? ""])];
}

/**
 * com.microsoft.QGemm: its bias is made of integers of the scale alpha · scale of A · scale of B, and its result is real where it has no
 * scale.
 */
function lowerGemm(node: NodeProto, at: Surroundings): readonly NodeProto[] | undefined {
  const nodes: NodeProto[] = [];
  const transposed = intAttribute(node, "transB", 0) === 1;
  const a = real(at, nodes, { node, place: [0, 1, 2] });
  const b = real(at, nodes, { node, place: [3, 4, 5], axis: transposed ? 0 : 1 });
  const [integers, scaleA, scaleB] = [6, 1, 4].map((index) =>
    node.input[index] ? at.numbers(node.input[index]!) : undefined
  );
  if (a === undefined || b === undefined || (node.input[6] && integers === undefined)) return undefined;
  const inputs = [a, b];
  if (integers !== undefined) {
    if (scaleA === undefined || scaleB === undefined) return undefined;
    const by = floatAttribute(node, "alpha", 1) * scaleA.data[0]!;
    const scales = scaleB.data;
    const bias = Float32Array.from(integers.data, (number, i) => number * by * scales[i % scales.length]!);
    inputs.push(at.fresh(`${node.input[6]}.real`));
    at.initializer(floatTensor(inputs[2]!, integers.shape, bias));
  }
  const [scale, zeroPoint] = [7, 8].map((index) => node.input[index] ?? "") as [string, string];
  const computed = scale === "" ? node.output[0]! : at.fresh(`${node.output[0]}.real`);
  const product = makeNode("Gemm", inputs, [computed], { name: nodeName(node) });
  nodes.push(withFields(product, { attribute: node.attribute }));
  return scale === "" ? nodes : [...nodes, quantisation(at, node, [computed, scale, zeroPoint])];
}

/** The node that quantises what makes a node's output. */
function quantisation(
  at: Surroundings,
  node: NodeProto,
  [computed, scale, zeroPoint]: readonly [string, string, string],
): NodeProto {
  const inputs = zeroPoint === "" ? [computed, scale] : [computed, scale, zeroPoint];
  return makeNode("QuantizeLinear", inputs, [node.output[0]!], { name: at.fresh(`${nodeName(node)}.quantise`) });
}

/** com.microsoft.QAttention, whose inputs stand in another order than Attention's. */
function lowerAttention(node: NodeProto, at: Surroundings): readonly NodeProto[] | undefined {
  const nodes: NodeProto[] = [];
  const stream = real(at, nodes, { node, place: [0, 3, 6] });
  const matrix = real(at, nodes, { node, place: [1, 4, 7] });
  if (stream === undefined || matrix === undefined) return undefined;
  const [bias, mask, past] = [2, 5, 8].map((index) => node.input[index] ?? "");
  const inputs = [stream, matrix, bias!, mask!, past!];
  while (inputs.at(-1) === "") inputs.pop();
  const attention = makeNode("Attention", inputs, node.output, { name: nodeName(node), domain: "com.microsoft" });
  return [...nodes, withFields(attention, { attribute: node.attribute })];
}

/** A real stream times a quantised matrix, plus a real bias. */
function lowerProduct(
  node: NodeProto,
  at: Surroundings,
  { matrix, bias, stream }: {
    readonly matrix: Place;
    readonly bias: number;
    readonly stream: (nodes: NodeProto[]) => string | undefined;
  },
): readonly NodeProto[] | undefined {
  const nodes: NodeProto[] = [];
  const left = stream(nodes);
  const right = real(at, nodes, { node, place: matrix });
  if (left === undefined || right === undefined) return undefined;
  const addend = node.input[bias];
  const product = addend ? at.fresh(`${node.output[0]}.product`) : node.output[0]!;
  nodes.push(makeNode("MatMul", [left, right], [product], { name: nodeName(node) }));
  if (!addend) return nodes;
  return [
    ...nodes,
    makeNode("Add", [product, addend], [node.output[0]!], { name: at.fresh(`${nodeName(node)}.bias`) }),
  ];
}

/**
 * The real numbers that a quantised input stands for; undefined where its scales don't belong to columns, the dimension `axis` (the
 * last).
 */
function real(
  at: Surroundings,
  nodes: NodeProto[],
  { node, place, axis: given }: { readonly node: NodeProto; readonly place: Place; readonly axis?: number },
): string | undefined {
  const [value, scale, zeroPoint] = place.map((index) => node.input[index] ?? "") as [string, string, string];
  const before = at.graph.producer(value);
  if (before?.opType === "DynamicQuantizeLinear") return before.input[0];
  const { constant, shape } = at.value(value);
  const scales = at.value(scale).shape;
  if (scales === undefined) return undefined;
  const columns = sizeOf(scales);
  const axis = given ?? (shape?.length ?? 1) - 1;
  if (columns > 1 && (scales.length !== 1 || columns !== shape?.[axis])) return undefined;
  const inputs = zeroPoint === "" ? [value, scale] : [value, scale, zeroPoint];
  const attributes = columns > 1 ? { axis: BigInt(axis) } : {};
  const make = (output: string): NodeProto =>
    makeNode("DequantizeLinear", inputs, [output], { name: output, attributes });
  const stored = inputs.every((name) => at.graph.scopeOf(name) === at.graph.scopeOf(value));
  if (constant && stored) return at.shared(value, "real", (output) => [make(output)]);
  const output = at.fresh(`${value}.real`);
  nodes.push(make(output));
  return output;
}
