/**
 * Tensors of 16-bit real numbers as they are stored: patterns for whoever widens them elsewhere than on this thread.
 *
 * @module
 */
import { release } from "../release.ts";
import { externalLocation, readExternalPieces } from "./external.ts";
import type { TensorProto } from "./gen/onnx_pb.ts";
import { checkCount, DataType, isExternal, sizeOf, tensorShape } from "./tensor.ts";

/** IEEE 754-2019 binary16, or the upper half of a binary32. */
export type HalfFormat = "float16" | "bfloat16";

/** The numbers of a stored tensor, row-major. */
export interface HalfSource {
  readonly format: HalfFormat;
  /** How many numbers. */
  readonly count: number;
  /**
   * Their bytes in order, two of each number, the lower first. A piece holds whole numbers, and is only good until the next is
   * asked for; all but the last have a length divisible by 4.
   *
   * @throws TuckerdError "bad-model" if the data isn't there or is too short.
   */
  pieces(): Iterable<Uint8Array<ArrayBuffer>>;
}

/** Bytes of external data that are read at a time: memory for a layer's weights is never taken. */
const PIECE = 2 ** 23;

/** How a tensor holds 16-bit numbers; undefined where it holds others. External data is read from `folder`. */
export function halfSource(tensor: TensorProto, folder: string): HalfSource | undefined {
  const { dataType } = tensor;
  if (dataType !== DataType.FLOAT16 && dataType !== DataType.BFLOAT16) return undefined;
  const count = sizeOf(tensorShape(tensor));
  const pieces = (): Iterable<Uint8Array<ArrayBuffer>> => piecesOf(tensor, count, folder);
  return { format: dataType === DataType.FLOAT16 ? "float16" : "bfloat16", count, pieces };
}

function* piecesOf(tensor: TensorProto, count: number, folder: string): Generator<Uint8Array<ArrayBuffer>> {
  if (isExternal(tensor)) {
    const location = externalLocation(tensor, folder);
    checkCount(tensor, location.length ?? 2 * count, 2 * count);
    const buffer = new Uint8Array(Math.min(2 * count, PIECE));
    try {
      yield* readExternalPieces(location, 2 * count, buffer);
    } finally {
      release(buffer);
    }
  } else if (tensor.int32Data.length > 0) {
    checkCount(tensor, tensor.int32Data.length, count);
    yield new Uint8Array(Uint16Array.from(tensor.int32Data).buffer);
  } else {
    checkCount(tensor, tensor.rawData.byteLength, 2 * count);
    yield tensor.rawData as Uint8Array<ArrayBuffer>;
  }
}
