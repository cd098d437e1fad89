/**
 * Tensors of a model: their element types, and their data wherever it is stored (raw bytes, typed fields, or a file of
 * external data, of which only the tensor's own range is read).
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { TuckerdError } from "../errors.ts";
import { release } from "../release.ts";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./float16.ts";
import { externalLocation, readExternal } from "./external.ts";
import { type TensorProto, TensorProto_DataLocation, TensorProtoSchema } from "./gen/onnx_pb.ts";

/** Element types by the numbers of TensorProto.DataType. */
export const DataType = {
  FLOAT: 1,
  UINT8: 2,
  INT8: 3,
  UINT16: 4,
  INT16: 5,
  INT32: 6,
  INT64: 7,
  STRING: 8,
  BOOL: 9,
  FLOAT16: 10,
  DOUBLE: 11,
  UINT32: 12,
  UINT64: 13,
  BFLOAT16: 16,
  UINT4: 21,
  INT4: 22,
} as const;

const FLOATING = new Set<number>([DataType.FLOAT, DataType.FLOAT16, DataType.DOUBLE, DataType.BFLOAT16]);
const INTEGERS: Readonly<Record<number, { bytes: number; read: (view: DataView, offset: number) => number }>> = {
  [DataType.UINT8]: { bytes: 1, read: (view, at) => view.getUint8(at) },
  [DataType.INT8]: { bytes: 1, read: (view, at) => view.getInt8(at) },
  [DataType.BOOL]: { bytes: 1, read: (view, at) => view.getUint8(at) },
  [DataType.UINT16]: { bytes: 2, read: (view, at) => view.getUint16(at, true) },
  [DataType.INT16]: { bytes: 2, read: (view, at) => view.getInt16(at, true) },
  [DataType.INT32]: { bytes: 4, read: (view, at) => view.getInt32(at, true) },
  [DataType.UINT32]: { bytes: 4, read: (view, at) => view.getUint32(at, true) },
  [DataType.INT64]: { bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
  [DataType.UINT64]: { bytes: 8, read: (view, at) => Number(view.getBigUint64(at, true)) },
};

/** Bits of an element, by the numbers of TensorProto.DataType; strings have no size of their own. */
const BITS: Readonly<Record<number, number>> = {
  [DataType.FLOAT]: 32,
  [DataType.UINT8]: 8,
  [DataType.INT8]: 8,
  [DataType.UINT16]: 16,
  [DataType.INT16]: 16,
  [DataType.INT32]: 32,
  [DataType.INT64]: 64,
  [DataType.BOOL]: 8,
  [DataType.FLOAT16]: 16,
  [DataType.DOUBLE]: 64,
  [DataType.UINT32]: 32,
  [DataType.UINT64]: 64,
  14: 64, // complex64
  15: 128, // complex128
  [DataType.BFLOAT16]: 16,
  17: 8, // the four kinds of float8
  18: 8,
  19: 8,
  20: 8,
  [DataType.UINT4]: 4,
  [DataType.INT4]: 4,
  23: 4, // float4e2m1
  24: 8, // float8e8m0
  25: 2, // uint2
  26: 2, // int2
};

/** Bytes that a tensor's numbers take as raw data, wherever they are stored. */
export function byteSizeOf(tensor: TensorProto): number {
  return Math.ceil(sizeOf(tensorShape(tensor)) * (BITS[tensor.dataType] ?? 8) / 8);
}

/** Whether an element type holds real numbers. */
export function isFloating(dataType: number): boolean {
  return FLOATING.has(dataType);
}

/** Whether an element type holds integers or booleans that `readIntegers` reads. */
export function isInteger(dataType: number): boolean {
  return dataType in INTEGERS || dataType === DataType.INT4 || dataType === DataType.UINT4;
}

/**
 * Bytes of one number of a floating type.
 *
 * @throws TypeError for other types.
 */
export function floatBytes(dataType: number): number {
  if (dataType === DataType.FLOAT) return 4;
  if (dataType === DataType.FLOAT16 || dataType === DataType.BFLOAT16) return 2;
  if (dataType === DataType.DOUBLE) return 8;
  throw new TypeError(`numbers of floating types have a size in bytes, ${dataTypeName(dataType)} isn't one of those`);
}

/** Name of an element type, for messages. */
export function dataTypeName(dataType: number): string {
  const entry = Object.entries(DataType).find(([, value]) => value === dataType);
  return entry === undefined ? `data type ${dataType}` : entry[0].toLowerCase();
}

/** Sizes of a tensor's dimensions. */
export function tensorShape(tensor: TensorProto): number[] {
  return tensor.dims.map(Number);
}

/** Number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * The values of a floating tensor as float32, row-major. Where the file holds aligned float32 the result is a view of it,
 * so don't write to it. External data is read from `folder`.
 *
 * @throws TuckerdError "bad-model" if the data isn't there, is too short, or isn't floating.
 */
export function readFloats(tensor: TensorProto, folder: string): Float32Array {
  const count = sizeOf(tensorShape(tensor));
  const type = tensor.dataType;
  const typed = type === DataType.FLOAT
    ? tensor.floatData
    : type === DataType.DOUBLE
    ? tensor.doubleData
    : type === DataType.FLOAT16 || type === DataType.BFLOAT16
    ? tensor.int32Data
    : undefined;
  if (typed === undefined) {
    throw new TuckerdError(
      "bad-model",
      `tensor ${tensor.name} should hold real numbers, but holds ${dataTypeName(type)}`,
    );
  }
  if (typed.length > 0) {
    checkCount(tensor, typed.length, count);
    if (type === DataType.FLOAT16) return float16ToFloat32(Uint16Array.from(typed));
    if (type === DataType.BFLOAT16) return bfloat16ToFloat32(Uint16Array.from(typed));
    return Float32Array.from(typed);
  }
  const bytesPerElement = type === DataType.FLOAT ? 4 : type === DataType.DOUBLE ? 8 : 2;
  const bytes = rawBytes(tensor, folder, count * bytesPerElement);
  switch (type) {
    case DataType.FLOAT:
      return new Float32Array(...aligned(bytes, 4));
    case DataType.DOUBLE:
      return converted(bytes, (stored) => Float32Array.from(new Float64Array(...aligned(stored, 8))));
    case DataType.FLOAT16:
      return converted(bytes, (stored) => float16ToFloat32(new Uint16Array(...aligned(stored, 2))));
    default:
      return converted(bytes, (stored) => bfloat16ToFloat32(new Uint16Array(...aligned(stored, 2))));
  }

  /** The numbers that bytes stand for; bytes that were read for this call alone aren't needed any more. */
  function converted(stored: Uint8Array, convert: (stored: Uint8Array) => Float32Array): Float32Array {
    const numbers = convert(stored);
    if (isExternal(tensor)) release(stored);
    return numbers;
  }
}

/**
 * Are numbers that `readFloats` or `readIntegers` gave held by nobody but their reader? What lies in the model itself may be a view of it.
 */
export function isOwned(tensor: TensorProto, numbers: Float32Array | Float64Array): boolean {
  return numbers.buffer !== tensor.rawData.buffer;
}

/**
 * The values of an integer or boolean tensor, row-major; 64-bit values beyond 2⁵³ lose their last digits (they are only
 * used as "to the end" in slices).
 *
 * @throws TuckerdError "bad-model" if the data isn't there, is too short, or isn't integer.
 */
export function readIntegers(tensor: TensorProto, folder: string): Float64Array {
  const count = sizeOf(tensorShape(tensor));
  const type = tensor.dataType;
  const typed = tensor.int64Data.length > 0
    ? tensor.int64Data
    : tensor.uint64Data.length > 0
    ? tensor.uint64Data
    : tensor.int32Data;
  const four = type === DataType.INT4 || type === DataType.UINT4;
  if (typed.length > 0 && !four) {
    checkCount(tensor, typed.length, count);
    return Float64Array.from(typed as readonly (bigint | number)[], Number);
  }
  if (four) {
    const bytes = typed.length > 0
      ? Uint8Array.from(typed as number[])
      : rawBytes(tensor, folder, Math.ceil(count / 2));
    return unpackFourBit(bytes, count, type === DataType.INT4);
  }
  const integer = INTEGERS[type];
  if (integer === undefined) {
    throw new TuckerdError("bad-model", `tensor ${tensor.name} should hold integers, but holds ${dataTypeName(type)}`);
  }
  const bytes = rawBytes(tensor, folder, count * integer.bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({ length: count }, (_, i) => integer.read(view, i * integer.bytes));
}

/** A new tensor of a floating type (float32 unless told otherwise) that holds `values`. Float32 data is not copied. */
export function floatTensor(
  name: string,
  shape: readonly number[],
  values: Float32Array,
  dataType: number = DataType.FLOAT,
): TensorProto {
  if (values.length !== sizeOf(shape)) {
    throw new RangeError(`tensor ${name} of shape [${shape}] needs ${sizeOf(shape)} values, got ${values.length}`);
  }
  const array = dataType === DataType.FLOAT
    ? values
    : dataType === DataType.FLOAT16
    ? float32ToFloat16(values)
    : dataType === DataType.BFLOAT16
    ? float32ToBfloat16(values)
    : dataType === DataType.DOUBLE
    ? Float64Array.from(values)
    : undefined;
  if (array === undefined) throw new TypeError(`tensor ${name}: ${dataTypeName(dataType)} is not a floating type`);
  const rawData = new Uint8Array(array.buffer as ArrayBuffer, array.byteOffset, array.byteLength);
  return create(TensorProtoSchema, { name, dims: shape.map(BigInt), dataType, rawData });
}

/** A new tensor of a floating type without numbers: they are made when its model is written (`OnnxModel.later`). */
export function laterTensor(name: string, shape: readonly number[], dataType: number): TensorProto {
  floatBytes(dataType);
  return create(TensorProtoSchema, { name, dims: shape.map(BigInt), dataType });
}

/** A new int64 tensor; a list unless a shape is given. */
export function int64Tensor(
  name: string,
  values: readonly number[],
  shape: readonly number[] = [values.length],
): TensorProto {
  const rawData = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  return create(TensorProtoSchema, { name, dims: shape.map(BigInt), dataType: DataType.INT64, rawData });
}

function rawBytes(tensor: TensorProto, folder: string, expected: number): Uint8Array {
  const bytes = isExternal(tensor) ? readExternal(externalLocation(tensor, folder), expected) : tensor.rawData;
  checkCount(tensor, bytes.byteLength, expected);
  return bytes;
}

/** Does a tensor's data lie in a file beside the model? */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === TensorProto_DataLocation.EXTERNAL;
}

/** @throws TuckerdError "bad-model" if a tensor has another number of bytes or values than its shape says. */
export function checkCount(tensor: TensorProto, actual: number, expected: number): void {
  if (actual === expected) return;
  throw new TuckerdError(
    "bad-model",
    `tensor ${tensor.name} of shape [${tensorShape(tensor)}] and type ${dataTypeName(tensor.dataType)} should have ` +
      `${expected} bytes or values, but has ${actual}: the file is damaged or was written wrongly`,
  );
}

/** Arguments of a typed array over `bytes`: in place where the alignment allows it, else over a copy. */
function aligned(bytes: Uint8Array, size: number): [ArrayBuffer, number, number] {
  const whole = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return [whole.buffer as ArrayBuffer, whole.byteOffset, whole.byteLength / size];
}

/** Two values a byte, the lower half first. */
function unpackFourBit(bytes: Uint8Array, count: number, signed: boolean): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    const value = (bytes[i >> 1]! >> (i % 2 === 0 ? 0 : 4)) & 15;
    return signed && value > 7 ? value - 16 : value;
  });
}
