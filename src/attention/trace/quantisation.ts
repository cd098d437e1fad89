/**
 * What QuantizeLinear and DequantizeLinear make of constants: weights that are stored as integers, or that a model trained for
 * quantisation rounds each time.
 *
 * @module
 */
import { intAttribute, type NodeProto } from "../../onnx/node.ts";
import { DataType, sizeOf } from "../../onnx/tensor.ts";
import { axisOf } from "./value.ts";

/** Numbers of a tensor, row-major. */
interface Numbers {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

/** One for the whole tensor, for every index of an axis, or for every block of one. */
interface Scales {
  readonly scale: ArrayLike<number>;
  readonly zeroPoint: ArrayLike<number> | undefined;
}

const { UINT8, UINT16, UINT4, INT8, INT16, INT4 } = DataType;

/** Least and greatest number of the types that are quantised to. */
const RANGES: Readonly<Record<number, readonly [least: number, greatest: number]>> = {
  [UINT8]: [0, 255],
  [INT8]: [-128, 127],
  [UINT16]: [0, 65535],
  [INT16]: [-32768, 32767],
  [UINT4]: [0, 15],
  [INT4]: [-8, 7],
};

/** Whether a node is a QuantizeLinear or a DequantizeLinear, of the standard or of com.microsoft. */
export function isQuantisation(node: NodeProto): boolean {
  return node.opType === "QuantizeLinear" || node.opType === "DequantizeLinear";
}

/** (x − zero point) · scale. */
export function dequantised(node: NodeProto, x: Numbers, { scale, zeroPoint }: Scales): Float32Array {
  const channelOf = channels(node, x.shape, scale.length);
  return Float32Array.from({ length: sizeOf(x.shape) }, (_, i) => {
    const channel = channelOf(i);
    return (x.data[i]! - (zeroPoint?.[channel] ?? 0)) * scale[channel]!;
  });
}

/** x / scale, rounded to an integer (to the even one of two), plus the zero point, within the type's range; undefined for other types. */
export function quantised(
  node: NodeProto,
  x: Numbers,
  { scale, zeroPoint, type }: Scales & { readonly type: number },
): Float32Array | undefined {
  const range = RANGES[type];
  if (range === undefined) return undefined;
  const [least, greatest] = range;
  const channelOf = channels(node, x.shape, scale.length);
  return Float32Array.from({ length: sizeOf(x.shape) }, (_, i) => {
    const channel = channelOf(i);
    const rounded = roundedToEven(Math.fround(x.data[i]! / scale[channel]!)) + (zeroPoint?.[channel] ?? 0);
    return Math.min(Math.max(rounded, least), greatest);
  });
}

function roundedToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The number of scale and zero point that an element of a tensor has. */
function channels(node: NodeProto, shape: readonly number[], count: number): (element: number) => number {
  const axis = axisOf(intAttribute(node, "axis", 1), shape.length);
  const inner = sizeOf(shape.slice(axis + 1));
  const size = shape[axis] ?? 1;
  const block = intAttribute(node, "block_size", 0);
  if (count === 1) return () => 0;
  if (block === 0) return (i) => Math.floor(i / inner) % size;
  const blocks = Math.ceil(size / block);
  return (i) => {
    const along = Math.floor(i / inner);
    return (Math.floor(along / size) * blocks + Math.floor(along % size / block)) * inner + i % inner;
  };
}
