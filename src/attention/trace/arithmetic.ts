/**
 * Operators that compute element by element, and the few that turn shapes into numbers: the arithmetic with which exported
 * graphs work out sizes and scales.
 *
 * @module
 */
import { intAttribute, type NodeProto, tensorAttribute } from "../../onnx/node.ts";
import { DataType, sizeOf } from "../../onnx/tensor.ts";
import { tensorValue } from "./constants.ts";
import { broadcastIndex, broadcastShapes, DATA_LIMIT, shaped, type Value } from "./value.ts";

type Unary = (a: number) => number;
type Binary = (a: number, b: number) => number;

/** Element-wise operators of one input whose numbers are followed. */
const COMPUTED: Readonly<Record<string, Unary>> = {
  Neg: (a) => -a,
  Abs: Math.abs,
  Sqrt: Math.sqrt,
  Exp: Math.exp,
  Log: Math.log,
  Reciprocal: (a) => 1 / a,
  Floor: Math.floor,
  Ceil: Math.ceil,
  Sign: Math.sign,
  Not: (a) => a === 0 ? 1 : 0,
};

/** Operators of one data input that keep its shape. */
const SHAPE_KEEPING = new Set([
  ...Object.keys(COMPUTED),
  ...["Round", "Erf", "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "FastGelu", "QuickGelu"],
  ...["BiasGelu", "HardSigmoid", "HardSwish", "Mish", "Softplus", "Softsign", "Swish", "Sin", "Cos", "Tan", "IsNaN"],
  ...["IsInf", "Clip", "Trilu", "CumSum", "Softmax", "LogSoftmax", "QuantizeLinear", "DequantizeLinear"],
]);

/** Element-wise operators of two or more inputs that broadcast. */
const BINARY = new Map<string, Binary | undefined>([
  ["Add", (a, b) => a + b],
  ["Sub", (a, b) => a - b],
  ["Mul", (a, b) => a * b],
  ["Div", (a, b) => a / b],
  ["Pow", (a, b) => a ** b],
  ["Mod", (a, b) => a - b * Math.floor(a / b)],
  ["Min", Math.min],
  ["Max", Math.max],
  ["Equal", (a, b) => a === b ? 1 : 0],
  ["Less", (a, b) => a < b ? 1 : 0],
  ["LessOrEqual", (a, b) => a <= b ? 1 : 0],
  ["Greater", (a, b) => a > b ? 1 : 0],
  ["GreaterOrEqual", (a, b) => a >= b ? 1 : 0],
  ["And", (a, b) => a !== 0 && b !== 0 ? 1 : 0],
  ["Or", (a, b) => a !== 0 || b !== 0 ? 1 : 0],
  ["Xor", (a, b) => (a !== 0) !== (b !== 0) ? 1 : 0],
  ["PRelu", undefined],
  ["Sum", undefined],
  ["Mean", undefined],
]);
const LOGICAL = new Set([
  "Not",
  "Equal",
  "Less",
  "LessOrEqual",
  "Greater",
  "GreaterOrEqual",
  "And",
  "Or",
  "Xor",
  "IsNaN",
  "IsInf",
]);

/** Whether the operator works element by element on its broadcast inputs. */
export function isElementwise(node: NodeProto): boolean {
  return SHAPE_KEEPING.has(node.opType) || BINARY.has(node.opType) || node.opType === "Where";
}

/** Shape and, where they are few and known, numbers of an element-wise operator; undefined for other operators. */
export function elementwise(node: NodeProto, inputs: readonly (Value | undefined)[]): Value | undefined {
  const [first] = inputs;
  if (SHAPE_KEEPING.has(node.opType)) {
    if (first?.shape === undefined) return undefined;
    const compute = COMPUTED[node.opType];
    const integer = first.integer || LOGICAL.has(node.opType);
    if (compute === undefined || first.data === undefined) return shaped(first.shape, integer);
    return { shape: first.shape, data: Float64Array.from(first.data, compute), integer, constant: false };
  }
  if (!BINARY.has(node.opType) && node.opType !== "Where") return undefined;
  const present = inputs.filter((input) => input !== undefined);
  // An operand of unknown shape (a table made in a loop, say) is taken to broadcast to the others, unless those are constants.
  const known = present.filter((input) => input.shape !== undefined);
  if (known.length < present.length && known.every((input) => input.constant)) return undefined;
  const shapes = known.map((input) => input.shape!);
  if (shapes.length === 0) return undefined;
  const shape = broadcastShapes(shapes);
  const integer = LOGICAL.has(node.opType) || present.slice(-2).every((input) => input.integer);
  const data = sizeOf(shape) <= DATA_LIMIT ? combine(node, present, { shape, integer }) : undefined;
  return { shape, data, integer, constant: false };
}

function combine(
  node: NodeProto,
  inputs: readonly Value[],
  result: { readonly shape: readonly number[]; readonly integer: boolean },
): Float64Array | undefined {
  if (!inputs.every((input) => input.data !== undefined)) return undefined;
  const operands = inputs.map((input) => {
    const index = broadcastIndex(input.shape!, result.shape);
    return Float64Array.from(index, (i) => input.data![i]!);
  });
  const [a, b, c] = operands;
  if (node.opType === "Where") return a!.map((condition, i) => condition !== 0 ? b![i]! : c![i]!);
  const compute = BINARY.get(node.opType);
  if (compute === undefined) return undefined;
  const combined = operands.reduce((left, right) => left.map((value, i) => compute(value, right[i]!)));
  return result.integer && node.opType === "Div" ? combined.map(Math.trunc) : combined;
}

/** What Cast does to known numbers and to the kind of the elements. */
export function cast(node: NodeProto, input: Value): Value {
  const to = intAttribute(node, "to", DataType.FLOAT);
  const integer = to !== DataType.FLOAT && to !== DataType.DOUBLE && to !== DataType.FLOAT16 &&
    to !== DataType.BFLOAT16;
  const convert = to === DataType.BOOL ? (a: number) => a !== 0 ? 1 : 0 : integer ? Math.trunc : (a: number) => a;
  return { ...input, integer, data: input.data && Float64Array.from(input.data, convert) };
}

/** Shape, Size, Range and ConstantOfShape: numbers from sizes. */
export function fromSizes(node: NodeProto, inputs: readonly (Value | undefined)[]): Value | undefined {
  const [first, second, third] = inputs;
  switch (node.opType) {
    case "Shape": {
      if (first?.shape === undefined) return undefined;
      const all = first.shape;
      const data = all.slice(
        intAttribute(node, "start", 0),
        node.attribute.some(({ name }) => name === "end") ? intAttribute(node, "end", all.length) : all.length,
      );
      return { shape: [data.length], data, integer: true, constant: false };
    }
    case "Size":
      return first?.shape && { shape: [], data: [sizeOf(first.shape)], integer: true, constant: false };
    case "Range": {
      const [start, limit, delta] = [first?.data?.[0], second?.data?.[0], third?.data?.[0]];
      if (start === undefined || limit === undefined || delta === undefined) return undefined;
      const length = Math.max(0, Math.ceil((limit - start) / delta));
      if (!Number.isFinite(length)) return undefined; // of sizes that the probe divided by zero
      const data = length <= DATA_LIMIT ? Float64Array.from({ length }, (_, i) => start + i * delta) : undefined;
      return { shape: [length], data, integer: first!.integer, constant: false };
    }
    case "ConstantOfShape": {
      if (first?.data === undefined) return undefined;
      const shape = Array.from(first.data);
      const tensor = tensorAttribute(node, "value");
      const value = tensor === undefined ? undefined : tensorValue(tensor, "");
      const data = sizeOf(shape) <= DATA_LIMIT
        ? new Float64Array(sizeOf(shape)).fill(value?.data?.[0] ?? 0)
        : undefined;
      return { shape, data, integer: value?.integer ?? false, constant: false };
    }
    default:
      return undefined;
  }
}
