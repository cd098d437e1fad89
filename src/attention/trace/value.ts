/**
 * What a probe run knows about a value: its shape, and its numbers where they are few and don't depend on data.
 *
 * @module
 */
import { sizeOf } from "../../onnx/tensor.ts";

/** Knowledge about one value under one probe. */
export interface Value {
  /** Undefined where an operator on the way isn't understood. */
  readonly shape: readonly number[] | undefined;
  /** Row-major numbers (booleans as 0 and 1), where they are known and few. */
  readonly data: ArrayLike<number> | undefined;
  /** Whether the elements are integers or booleans, for which division truncates. */
  readonly integer: boolean;
  /** Whether the value depends on initializers and constants only. */
  readonly constant: boolean;
}

/** Nothing is known. */
export const UNKNOWN: Value = { shape: undefined, data: undefined, integer: false, constant: false };

/** Values with at most this many elements carry their numbers. */
export const DATA_LIMIT = 1024;

/** A value of which only the shape is known. */
export function shaped(shape: readonly number[] | undefined, integer = false): Value {
  return { shape, data: undefined, integer, constant: false };
}

/** Distance between neighbours of each dimension of a row-major array. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
}

/** A dimension counted from the end if negative, as ONNX writes axes. */
export function axisOf(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/**
 * The shape to which several broadcast (ONNX multidirectional broadcasting). Sizes that disagree give the larger one: the
 * probe's sizes needn't suit a graph that ties, say, an image size to its table of positions.
 */
export function broadcastShapes(shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((shape) => shape[i - rank + shape.length] ?? 1);
    return sizes.includes(0) ? 0 : Math.max(...sizes);
  });
}

/**
 * For every element of `shape`, the flat index of the element of an operand of shape `from` that broadcasting puts there.
 */
export function broadcastIndex(from: readonly number[], shape: readonly number[]): Int32Array {
  const lead = shape.length - from.length;
  const strides = stridesOf(from);
  return stridedIndex(shape, shape.map((_, i) => i < lead || from[i - lead] === 1 ? 0 : strides[i - lead]!));
}

/** Flat indices `offset + Σ iₖ·strides[k]` over all positions of `shape`, in row-major order. */
export function stridedIndex(shape: readonly number[], strides: readonly number[], offset = 0): Int32Array {
  const index = new Int32Array(sizeOf(shape));
  if (index.length === 0) return index;
  index[0] = offset;
  let filled = 1;
  // Fill the innermost dimension first, then repeat the filled part with the next dimension's stride.
  for (let k = shape.length - 1; k >= 0; k--) {
    const stride = strides[k]!;
    const block = filled;
    for (let i = 1; i < shape[k]!; i++) {
      for (let j = 0; j < block; j++) index[filled++] = index[j]! + i * stride;
    }
  }
  return index;
}
