/**
 * Operators that only move elements: Reshape, Transpose, Slice, Concat… One description of each, from which both the shape
 * arithmetic and the tracing of elements follow. Operators and their versions after the ONNX operator specification.
 *
 * @module
 */
import { intAttribute, intsAttribute, type NodeProto } from "../../onnx/node.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { axisOf, broadcastIndex, broadcastShapes, stridedIndex, stridesOf, type Value } from "./value.ts";

/** One output of a movement operator. */
export interface Moved {
  readonly shape: readonly number[];
  /**
   * For every output element the flat index of the input element that it is; of several data inputs, in the joined
   * numbering of all of them one after the other. Undefined: the elements keep their order.
   */
  readonly index?: () => Int32Array;
}

/** Which inputs of the node are moved (the others steer). */
export interface Movement {
  readonly dataInputs: readonly number[];
  readonly outputs: readonly Moved[];
}

type Mover = (node: NodeProto, inputs: readonly (Value | undefined)[]) => Movement | undefined;

/** What a movement operator does, or undefined if the operator isn't one or its steering inputs aren't known. */
export function movementOf(node: NodeProto, inputs: readonly (Value | undefined)[]): Movement | undefined {
  if (node.domain !== "" && node.domain !== "ai.onnx") return undefined;
  return movers.get(node.opType)?.(node, inputs);
}

/** Whether an operator of that name only moves elements. */
export function isMovement(node: NodeProto): boolean {
  return (node.domain === "" || node.domain === "ai.onnx") && movers.has(node.opType);
}

function single(shape: readonly number[], index?: () => Int32Array): Movement {
  return { dataInputs: [0], outputs: [index === undefined ? { shape } : { shape, index }] };
}

const same: Mover = (_node, [input]) => input?.shape && single(input.shape);

const reshape: Mover = (node, [input, target]) => {
  const wanted = intsAttribute(node, "shape") ?? numbers(target);
  if (input?.shape === undefined || wanted === undefined) return undefined;
  const { shape } = input;
  const allowZero = intAttribute(node, "allowzero", 0) === 1;
  const sizes = wanted.map((size, i) => size === 0 && !allowZero ? shape[i] ?? 0 : size);
  const rest = sizeOf(sizes.filter((size) => size !== -1));
  const filled = sizes.map((size) => size === -1 ? sizeOf(shape) / rest : size);
  return sizeOf(filled) === sizeOf(shape) && filled.every(Number.isInteger) ? single(filled) : undefined;
};

const transpose: Mover = (node, [input]) => {
  if (input?.shape === undefined) return undefined;
  const { shape } = input;
  const perm = intsAttribute(node, "perm") ?? shape.map((_, i) => shape.length - 1 - i);
  const strides = stridesOf(shape);
  const moved = perm.map((axis) => shape[axis]!);
  return single(moved, () => stridedIndex(moved, perm.map((axis) => strides[axis]!)));
};

const squeeze: Mover = (node, [input, axesInput]) => {
  if (input?.shape === undefined) return undefined;
  const { shape } = input;
  const axes = intsAttribute(node, "axes") ?? numbers(axesInput);
  if (axes === undefined && node.input.length > 1) return undefined;
  const dropped = axes?.map((axis) => axisOf(axis, shape.length));
  return single(shape.filter((size, i) => dropped === undefined ? size !== 1 : !dropped.includes(i)));
};

const unsqueeze: Mover = (node, [input, axesInput]) => {
  const axes = intsAttribute(node, "axes") ?? numbers(axesInput);
  if (input?.shape === undefined || axes === undefined) return undefined;
  const rank = input.shape.length + axes.length;
  const shape = [...input.shape];
  for (const axis of axes.map((value) => axisOf(value, rank)).sort((a, b) => a - b)) shape.splice(axis, 0, 1);
  return single(shape);
};

const flatten: Mover = (node, [input]) => {
  if (input?.shape === undefined) return undefined;
  const axis = axisOf(intAttribute(node, "axis", 1), input.shape.length);
  return single([sizeOf(input.shape.slice(0, axis)), sizeOf(input.shape.slice(axis))]);
};

const expand: Mover = (_node, [input, target]) => {
  const wanted = numbers(target);
  if (input?.shape === undefined || wanted === undefined) return undefined;
  const from = input.shape;
  const shape = broadcastShapes([from, wanted]);
  return single(shape, () => broadcastIndex(from, shape));
};

const tile: Mover = (_node, [input, repeatsInput]) => {
  const repeats = numbers(repeatsInput);
  if (input?.shape === undefined || repeats?.length !== input.shape.length) return undefined;
  const from = input.shape;
  const strides = stridesOf(from);
  const shape = from.map((size, i) => size * repeats[i]!);
  // Seen as [repeat, size] pairs, a tiled dimension is a repeat of stride 0 around the original.
  const pairs = from.flatMap((size, i) => [repeats[i]!, size]);
  return single(shape, () => stridedIndex(pairs, strides.flatMap((stride) => [0, stride])));
};

const slice: Mover = (node, [input, startsInput, endsInput, axesInput, stepsInput]) => {
  const starts = intsAttribute(node, "starts") ?? numbers(startsInput);
  const ends = intsAttribute(node, "ends") ?? numbers(endsInput);
  if (input?.shape === undefined || starts === undefined || ends === undefined) return undefined;
  const from = input.shape;
  const axes = intsAttribute(node, "axes") ?? (node.input[3] ? numbers(axesInput) : starts.map((_, i) => i));
  const steps = node.input[4] ? numbers(stepsInput) : starts.map(() => 1);
  if (axes === undefined || steps === undefined) return undefined;
  const shape = [...from];
  const strides = stridesOf(from);
  let offset = 0;
  axes.forEach((rawAxis, k) => {
    const axis = axisOf(rawAxis, from.length);
    const size = from[axis]!;
    const step = steps[k]!;
    const clamp = (value: number, low: number, high: number): number =>
      Math.min(Math.max(value < 0 ? value + size : value, low), high);
    const start = step > 0 ? clamp(starts[k]!, 0, size) : clamp(starts[k]!, 0, size - 1);
    const end = step > 0 ? clamp(ends[k]!, 0, size) : clamp(ends[k]!, -1, size - 1);
    shape[axis] = Math.max(0, Math.ceil((end - start) / step));
    offset += start * strides[axis]!;
    strides[axis]! *= step;
  });
  return single(shape, () => stridedIndex(shape, strides, offset));
};

const split: Mover = (node, [input, sizesInput]) => {
  if (input?.shape === undefined) return undefined;
  const from = input.shape;
  const axis = axisOf(intAttribute(node, "axis", 0), from.length);
  const parts = node.output.length;
  const even = Math.ceil(from[axis]! / parts);
  const given = intsAttribute(node, "split") ?? (node.input[1] ? numbers(sizesInput) : undefined);
  if (node.input[1] && given === undefined) return undefined;
  const sizes = given ?? Array.from({ length: parts }, (_, i) => Math.min(even, from[axis]! - i * even));
  const strides = stridesOf(from);
  let at = 0;
  const outputs = sizes.map((size) => {
    const shape = from.with(axis, size);
    const offset = at * strides[axis]!;
    at += size;
    return { shape, index: () => stridedIndex(shape, strides, offset) };
  });
  return { dataInputs: [0], outputs };
};

const concat: Mover = (node, inputs) => {
  const shapes = inputs.map((input) => input?.shape);
  const [first] = shapes;
  if (first === undefined || !shapes.every((shape) => shape !== undefined)) return undefined;
  const axis = axisOf(intAttribute(node, "axis", 0), first.length);
  // The probe's sizes needn't suit every graph: what has no such dimension can't be joined along it.
  if (axis < 0 || axis >= first.length || shapes.some((part) => part.length !== first.length)) return undefined;
  const shape = first.with(axis, shapes.reduce((total, part) => total + part[axis]!, 0));
  const index = (): Int32Array => {
    const joined = new Int32Array(sizeOf(shape));
    const strides = stridesOf(shape);
    let at = 0;
    let base = 0;
    for (const part of shapes) {
      const places = stridedIndex(part, strides, at * strides[axis]!);
      places.forEach((place, i) => joined[place] = base + i);
      at += part[axis]!;
      base += sizeOf(part);
    }
    return joined;
  };
  return { dataInputs: inputs.map((_, i) => i), outputs: [{ shape, index }] };
};

const gather: Mover = (node, [input, indices]) => {
  if (input?.shape === undefined || indices?.shape === undefined || indices.data === undefined) return undefined;
  const from = input.shape;
  const axis = axisOf(intAttribute(node, "axis", 0), from.length);
  const picked = Array.from(indices.data, (value) => axisOf(value, from[axis]!));
  const shape = [...from.slice(0, axis), ...indices.shape, ...from.slice(axis + 1)];
  const inner = sizeOf(from.slice(axis + 1));
  return single(shape, () => {
    const index = new Int32Array(sizeOf(shape));
    let filled = 0;
    for (let outer = 0; outer < sizeOf(from.slice(0, axis)); outer++) {
      for (const k of picked) {
        for (let i = 0; i < inner; i++) index[filled++] = (outer * from[axis]! + k) * inner + i;
      }
    }
    return index;
  });
};

/** Rows of the leading dimensions, picked by known tuples of indices (advanced indexing, as torch.export writes it). */
const gatherND: Mover = (node, [input, indices]) => {
  if (input?.shape === undefined || indices?.shape === undefined || indices.data === undefined) return undefined;
  if (intAttribute(node, "batch_dims", 0) !== 0) return undefined;
  const from = input.shape;
  const width = indices.shape.at(-1)!;
  const strides = stridesOf(from);
  const inner = sizeOf(from.slice(width));
  const shape = [...indices.shape.slice(0, -1), ...from.slice(width)];
  const { data } = indices;
  return single(shape, () => {
    const index = new Int32Array(sizeOf(shape));
    for (let at = 0; at < index.length; at++) {
      const tuple = Math.floor(at / inner);
      let start = 0;
      for (let k = 0; k < width; k++) start += axisOf(data[tuple * width + k]!, from[k]!) * strides[k]!;
      index[at] = start + at % inner;
    }
    return index;
  });
};

const movers = new Map<string, Mover>([
  ["Identity", same],
  ["Dropout", same],
  ["Cast", same],
  ["CastLike", same],
  ["Reshape", reshape],
  ["Transpose", transpose],
  ["Squeeze", squeeze],
  ["Unsqueeze", unsqueeze],
  ["Flatten", flatten],
  ["Expand", expand],
  ["Tile", tile],
  ["Slice", slice],
  ["Split", split],
  ["Concat", concat],
  ["Gather", gather],
  ["GatherND", gatherND],
]);

function numbers(value: Value | undefined): number[] | undefined {
  return value?.data === undefined ? undefined : Array.from(value.data);
}
