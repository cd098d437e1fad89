/**
 * Output shapes of the operators that neither move elements nor work element by element, as far as transformers use them.
 *
 * @module
 */
import { intAttribute, intsAttribute, type NodeProto, stringAttribute } from "../../onnx/node.ts";
import { equationOf } from "./equation.ts";
import { movedShape, operandMoves } from "./fused_matmul.ts";
import { axisOf, broadcastShapes, shaped, type Value } from "./value.ts";

type Shape = readonly number[] | undefined;
type Rule = (node: NodeProto, shapes: readonly Shape[], inputs: readonly (Value | undefined)[]) => readonly Shape[];

/** Shapes of a node's outputs; empty for an operator that isn't known here. */
export function inferShapes(node: NodeProto, inputs: readonly (Value | undefined)[]): (Value | undefined)[] {
  const rule = rules.get(node.opType) ?? (node.opType.startsWith("Reduce") ? reduce : undefined);
  const integer = inputs[0]?.integer ?? false;
  return (rule?.(node, inputs.map((input) => input?.shape), inputs) ?? []).map((shape) => shaped(shape, integer));
}

const sameAsFirst: Rule = (_node, [first]) => [first];

const matmul: Rule = (_node, [a, b]) => [matmulShape(a, b)];

/** Shape of numpy.matmul. */
function matmulShape(a: Shape, b: Shape): Shape {
  if (a === undefined || b === undefined) return undefined;
  if (a.length < 2 || b.length < 2) return a.length === 1 && b.length === 2 ? [b[1]!] : a.slice(0, -1);
  return [...broadcastShapes([a.slice(0, -2), b.slice(0, -2)]), a.at(-2)!, b.at(-1)!];
}

const fusedMatmul: Rule = (node, shapes) => {
  const [a, b] = operandMoves(node).map((moves, i) => shapes[i] && movedShape(shapes[i], moves));
  return [matmulShape(a, b)];
};

const gemm: Rule = (node, [a, b]) => {
  if (a === undefined || b === undefined) return [];
  return [[a[intAttribute(node, "transA", 0)]!, b[1 - intAttribute(node, "transB", 0)]!]];
};

const matmulNBits: Rule = (node, [a]) => [a && [...a.slice(0, -1), intAttribute(node, "N", 0)]];

const gather: Rule = (node, [data, indices]) => {
  if (data === undefined || indices === undefined) return [];
  const axis = axisOf(intAttribute(node, "axis", 0), data.length);
  return [[...data.slice(0, axis), ...indices, ...data.slice(axis + 1)]];
};

const gatherElements: Rule = (_node, [, indices]) => [indices];

const gatherND: Rule = (node, [data, indices]) => {
  if (data === undefined || indices === undefined) return [];
  const batch = intAttribute(node, "batch_dims", 0);
  return [[...indices.slice(0, -1), ...data.slice(batch + indices.at(-1)!)]];
};

const reduce: Rule = (node, [data], inputs) => {
  if (data === undefined) return [];
  const given = intsAttribute(node, "axes") ?? (inputs[1]?.data && Array.from(inputs[1].data));
  if (given === undefined && node.input[1]) return [];
  const axes = (given ?? data.map((_, i) => i)).map((axis) => axisOf(axis, data.length));
  const keep = intAttribute(node, "keepdims", 1) === 1;
  return [data.flatMap((size, i) => !axes.includes(i) ? [size] : keep ? [1] : [])];
};

const argReduce: Rule = (node, [data]) => {
  if (data === undefined) return [];
  const axis = axisOf(intAttribute(node, "axis", 0), data.length);
  return [intAttribute(node, "keepdims", 1) === 1 ? data.with(axis, 1) : data.toSpliced(axis, 1)];
};

const topK: Rule = (node, [data], inputs) => {
  const k = inputs[1]?.data?.[0];
  if (data === undefined || k === undefined) return [];
  const shape = data.with(axisOf(intAttribute(node, "axis", -1), data.length), k);
  return [shape, shape];
};

const conv: Rule = (node, [x, w]) => {
  if (x === undefined || w === undefined) return [];
  return [[x[0]!, w[0]!, ...convolved(node, x, w).map((size) => Math.max(1, size))]];
};

/** Spatial sizes of a convolution's result; 0 and less where the kernel is larger than the input. */
function convolved(node: NodeProto, x: readonly number[], w: readonly number[]): number[] {
  const spatial = x.slice(2);
  const kernel = intsAttribute(node, "kernel_shape") ?? w.slice(2);
  const strides = intsAttribute(node, "strides") ?? spatial.map(() => 1);
  const pads = intsAttribute(node, "pads") ?? spatial.flatMap(() => [0, 0]);
  const dilations = intsAttribute(node, "dilations") ?? spatial.map(() => 1);
  return spatial.map((size, i) => {
    const covered = (kernel[i]! - 1) * dilations[i]! + 1;
    return Math.floor((size + pads[i]! + pads[i + spatial.length]! - covered) / strides[i]!) + 1;
  });
}

/** Pooling: windows of a kernel over the spatial dimensions. */
const pool: Rule = (node, [x]) => {
  const sizes = x && pooled(node, x);
  return sizes === undefined ? [] : [[...x!.slice(0, 2), ...sizes.map((size) => Math.max(1, size))]];
};

/** Spatial sizes of a pooling's result; 0 and less where the kernel is larger than the input. */
function pooled(node: NodeProto, x: readonly number[]): number[] | undefined {
  const kernel = intsAttribute(node, "kernel_shape");
  if (kernel === undefined || (stringAttribute(node, "auto_pad") ?? "NOTSET") !== "NOTSET") return undefined;
  const strides = intsAttribute(node, "strides") ?? kernel.map(() => 1);
  const pads = intsAttribute(node, "pads") ?? kernel.flatMap(() => [0, 0]);
  const dilations = intsAttribute(node, "dilations") ?? kernel.map(() => 1);
  const round = intAttribute(node, "ceil_mode", 0) === 1 ? Math.ceil : Math.floor;
  return x.slice(2).map((size, i) => {
    const covered = (kernel[i]! - 1) * dilations[i]! + 1;
    return round((size + pads[i]! + pads[i + kernel.length]! - covered) / strides[i]!) + 1;
  });
}

/** Spatial sizes of what a convolution or pooling makes of its input; undefined for other operators and unknown shapes. */
export function windowSizes(node: NodeProto, [x, w]: readonly (Value | undefined)[]): number[] | undefined {
  if (x?.shape === undefined) return undefined;
  if (node.opType === "Conv") return w?.shape && convolved(node, x.shape, w.shape);
  return node.opType === "MaxPool" || node.opType === "AveragePool" ? pooled(node, x.shape) : undefined;
}

/** com.microsoft.nchwc.ReorderInput: channels in blocks, whose last may be filled up; only ReorderOutput's count is exact. */
const reorderInput: Rule = (node, [x]) => {
  if (x === undefined) return [];
  return [intAttribute(node, "channels_last", 0) === 1 ? [x[0]!, x.at(-1)!, ...x.slice(1, -1)] : x];
};

/** com.microsoft.nchwc.ReorderOutput: channels one by one again, as many as it says. */
const reorderOutput: Rule = (node, [x]) => {
  const channels = intAttribute(node, "channels", 0);
  if (x === undefined) return [];
  const [batch, , ...spatial] = x as [number, number, ...number[]];
  return [intAttribute(node, "channels_last", 0) === 1 ? [batch, ...spatial, channels] : [batch, channels, ...spatial]];
};

const pad: Rule = (node, [data], inputs) => {
  const pads = intsAttribute(node, "pads") ?? (inputs[1]?.data && Array.from(inputs[1].data));
  if (data === undefined || pads === undefined) return [];
  return [data.map((size, i) => size + pads[i]! + pads[i + data.length]!)];
};

/** Sizes given, or sizes times scales; before opset 11 the scales come second. */
const resize: Rule = (node, [data], inputs) => {
  if (data === undefined) return [];
  const given = (i: number): readonly number[] | undefined => {
    const values = inputs[i]?.data;
    return values === undefined || values.length === 0 ? undefined : Array.from(values);
  };
  const sizes = given(3);
  const scales = sizes === undefined ? given(node.input.length === 2 ? 1 : 2) : undefined;
  const axes = intsAttribute(node, "axes") ?? data.map((_, i) => i);
  const found = sizes ?? scales?.map((scale, k) => Math.floor(data[axisOf(axes[k]!, data.length)]! * scale));
  if (found?.length !== axes.length) return [];
  return [axes.reduce((shape, axis, k) => shape.with(axisOf(axis, data.length), found[k]!), [...data])];
};

/** Samples of an image at the points of a grid, [batch, …, coordinates]. */
const gridSample: Rule = (
  _node,
  [data, grid],
) => [data && grid && [data[0]!, data[1]!, ...grid.slice(1, -1)]];

const oneHot: Rule = (_node, [indices], inputs) => {
  const depth = inputs[1]?.data?.[0];
  return indices === undefined || depth === undefined ? [] : [[...indices, depth]];
};

/** Einsum without repeated letters in one operand, as transformers use it. */
const einsum: Rule = (node, shapes) => {
  const equation = equationOf(node, shapes.map((shape) => shape?.length));
  const sizes = new Map<string, number>();
  equation?.operands.forEach((letters, i) => letters.forEach((letter, k) => sizes.set(letter, shapes[i]?.[k] ?? NaN)));
  const shape = equation?.result.map((letter) => sizes.get(letter)!);
  return [shape?.some(Number.isNaN) ? undefined : shape];
};

const embedLayerNorm: Rule = (_node, [ids, , words]) => [ids && words && [...ids, words.at(-1)!], ids && [ids[0]!]];

const fusedAttention: Rule = (node, [x, weight, value]) => {
  if (x === undefined || weight === undefined) return [];
  if (node.domain === "com.microsoft") return [[...x.slice(0, -1), weight.at(-1)! / 3]];
  if (value === undefined) return [];
  if (x.length === 4) return [[...x.slice(0, -1), value.at(-1)!]];
  const [heads, groups] = ["q_num_heads", "kv_num_heads"].map((name) => intAttribute(node, name, 1)) as [
    number,
    number,
  ];
  return [[...x.slice(0, -1), heads * value.at(-1)! / groups]];
};

const groupQueryAttention: Rule = (node, [query, key]) => {
  if (query === undefined) return [];
  const [heads, groups] = ["num_heads", "kv_num_heads"].map((name) => intAttribute(node, name, 1)) as [number, number];
  const width = key === undefined ? query.at(-1)! * heads / (heads + 2 * groups) : query.at(-1)!;
  return [[...query.slice(0, -1), width]];
};

const multiHeadAttention: Rule = (
  _node,
  [query, , value],
) => [query && value && [...query.slice(0, -1), value.at(-1)!]];

const rules = new Map<string, Rule>([
  ["MatMul", matmul],
  ["FusedMatMul", fusedMatmul],
  ["MatMulInteger", matmul],
  ["MatMulIntegerToFloat", matmul],
  ["DynamicQuantizeMatMul", matmul],
  ["Gemm", gemm],
  ["MatMulNBits", matmulNBits],
  ["MatMulBnb4", matmulNBits],
  ["Gather", gather],
  ["GatherElements", gatherElements],
  ["GatherND", gatherND],
  ["ScatterND", sameAsFirst],
  ["ScatterElements", sameAsFirst],
  ["TensorScatter", sameAsFirst],
  ["ArgMax", argReduce],
  ["ArgMin", argReduce],
  ["TopK", topK],
  ["Conv", conv],
  ["QLinearConv", (node, shapes, inputs) => conv(node, [shapes[0], shapes[3]], inputs)],
  ["ReorderInput", reorderInput],
  ["ReorderOutput", reorderOutput],
  ["AveragePool", pool],
  ["MaxPool", pool],
  ["Pad", pad],
  ["OneHot", oneHot],
  ["Resize", resize],
  ["GridSample", gridSample],
  ["RandomUniformLike", sameAsFirst],
  ["RandomNormalLike", sameAsFirst],
  ["Einsum", einsum],
  ["LayerNormalization", sameAsFirst],
  ["SimplifiedLayerNormalization", sameAsFirst],
  ["InstanceNormalization", sameAsFirst],
  ["GroupNormalization", sameAsFirst],
  ["BatchNormalization", sameAsFirst],
  ["RMSNormalization", sameAsFirst],
  ["SkipLayerNormalization", (_node, [x]) => [x, undefined, undefined, x]],
  ["SkipSimplifiedLayerNormalization", (_node, [x]) => [x, undefined, undefined, x]],
  ["DynamicQuantizeLinear", (_node, [x]) => [x, [], []]],
  ["EmbedLayerNormalization", embedLayerNorm],
  ["QEmbedLayerNormalization", embedLayerNorm],
  ["RotaryEmbedding", sameAsFirst],
  ["Attention", fusedAttention],
  ["GroupQueryAttention", groupQueryAttention],
  ["MultiHeadAttention", multiHeadAttention],
]);
