/**
 * Matrices of projections as files store them: plain, quantised per tensor or per column, in blocks of a few bits
 * (com.microsoft.MatMulNBits), or by the codes of bitsandbytes (com.microsoft.MatMulBnb4). Quantised ones are read as the real numbers
 * that they stand for.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { release } from "../../release.ts";
import { constantArray } from "./constants.ts";

/** Where a matrix is stored, and how. */
export type StoredMatrix =
  | { readonly kind: "plain"; readonly name: string; readonly transposed: boolean }
  | {
    readonly kind: "quantised";
    readonly name: string;
    readonly scale: string;
    readonly zeroPoint: string | undefined;
  }
  | {
    readonly kind: "blocks";
    readonly name: string;
    readonly scales: string;
    readonly zeroPoints: string | undefined;
    /** Whether they are integers of so many bits too, rather than real numbers. */
    readonly packedZeroPoints: boolean;
    /** For every row the block whose scale and zero point it has; undefined where that is the one that it stands in. */
    readonly groups: string | undefined;
    readonly bits: number;
    readonly blockSize: number;
  }
  | {
    readonly kind: "codes";
    readonly name: string;
    /** Largest magnitude of each block. */
    readonly scales: string;
    readonly code: keyof typeof CODES;
    readonly blockSize: number;
  };

/** What the 16 codes of bitsandbytes stand for, as shares of a block's largest magnitude (onnxruntime: blockwise_quant_block_bnb4.h). */
const CODES = {
  FP4: signed([0, 0.00520833333, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25]),
  NF4: [
    ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
    ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0],
    ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
    ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
  ],
} as const;

/** Sizes of a matrix as it acts on row vectors. */
export interface MatrixSizes {
  readonly rows: number;
  readonly columns: number;
}

/** Numbers of a matrix, row-major. */
export interface MatrixNumbers {
  readonly data: Float32Array;
  /** Nobody else holds them. Otherwise they may be a view of the file, which must not be written to. */
  readonly owned: boolean;
}

/** How a matrix is read: its sizes, and the folder of external data. */
export interface MatrixPlace extends MatrixSizes {
  readonly folder: string;
}

/** Reads a matrix as rows × columns. */
export function readMatrix(graph: Graph, stored: StoredMatrix, place: MatrixPlace): MatrixNumbers {
  const constant = constantArray(graph, stored.name, place.folder);
  const data = numbersOf(constant.data, stored, { graph, ...place });
  if (data === constant.data) return { data, owned: constant.owned };
  if (constant.owned) release(constant.data);
  return { data, owned: true };
}

/** The real numbers that stored ones stand for; the very same array where nothing has to be done. */
function numbersOf(
  data: ArrayLike<number>,
  stored: StoredMatrix,
  { graph, rows, columns, folder }: MatrixPlace & { readonly graph: Graph },
): Float32Array {
  switch (stored.kind) {
    case "plain": {
      const matrix = data instanceof Float32Array ? data : Float32Array.from(data);
      return stored.transposed ? transposed(matrix, { rows: columns, columns: rows }) : matrix;
    }
    case "quantised": {
      const scale = constantArray(graph, stored.scale, folder).data;
      const zeroPoint = stored.zeroPoint === undefined ? [0] : constantArray(graph, stored.zeroPoint, folder).data;
      return Float32Array.from({ length: rows * columns }, (_, i) => {
        const column = i % columns;
        return (data[i]! - zeroPoint[column % zeroPoint.length]!) * scale[column % scale.length]!;
      });
    }
    case "blocks": {
      const scales = constantArray(graph, stored.scales, folder).data;
      const [zeroPoints, groups] = [stored.zeroPoints, stored.groups].map((name) =>
        name === undefined ? undefined : constantArray(graph, name, folder).data
      );
      return readBlocks(data, { ...stored, scales, zeroPoints, groups, rows, columns });
    }
    case "codes": {
      const scales = constantArray(graph, stored.scales, folder).data;
      const code = CODES[stored.code];
      // The transposed matrix, row by row, two codes a byte, the first in the upper half; blocks run on over the ends of rows.
      const numbers = Float32Array.from({ length: rows * columns }, (_, i) => {
        const index = (data[i >> 1]! >> (i % 2 === 0 ? 4 : 0)) & 15;
        return code[index]! * scales[Math.floor(i / stored.blockSize)]!;
      });
      return transposed(numbers, { rows: columns, columns: rows });
    }
  }
}

/**
 * MatMulNBits: column n is stored as blocks of `blockSize` numbers, each with a scale and a zero point, the first number in
 * the lowest bits. Without zero points the middle of the range stands for 0. With `groups` (`g_idx`, GPTQ's act-order) a number has scale
 * and zero point of another block than its own.
 */
function readBlocks(
  packed: ArrayLike<number>,
  { bits, blockSize, scales, zeroPoints, packedZeroPoints, groups, rows, columns }: MatrixSizes & {
    readonly bits: number;
    readonly packedZeroPoints: boolean;
    readonly blockSize: number;
    readonly scales: ArrayLike<number>;
    readonly zeroPoints: ArrayLike<number> | undefined;
    readonly groups: ArrayLike<number> | undefined;
  },
): Float32Array {
  const blocks = Math.ceil(rows / blockSize);
  const perByte = 8 / bits;
  const bytesPerBlock = blockSize / perByte;
  const zerosPerColumn = Math.ceil(blocks / perByte);
  const number = (bytes: ArrayLike<number>, start: number, i: number): number =>
    (bytes[start + Math.floor(i / perByte)]! >> (i % perByte * bits)) & (2 ** bits - 1);
  const zeroOf = (n: number, block: number): number => {
    if (zeroPoints === undefined) return 2 ** (bits - 1);
    return packedZeroPoints ? number(zeroPoints, n * zerosPerColumn, block) : zeroPoints[n * blocks + block]!;
  };
  const matrix = new Float32Array(rows * columns);
  for (let n = 0; n < columns; n++) {
    let [known, zero, scale] = [-1, 0, 0];
    for (let row = 0; row < rows; row++) {
      const block = Math.floor(row / blockSize);
      const group = groups === undefined ? block : groups[row]!;
      if (group !== known) [known, zero, scale] = [group, zeroOf(n, group), scales[n * blocks + group]!];
      const start = (n * blocks + block) * bytesPerBlock;
      matrix[row * columns + n] = (number(packed, start, row % blockSize) - zero) * scale;
    }
  }
  return matrix;
}

function transposed(matrix: Float32Array, { rows, columns }: MatrixSizes): Float32Array {
  const result = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) result[c * rows + r] = matrix[r * columns + c]!;
  }
  return result;
}

/** A code whose upper half stands for the negatives of the lower. */
function signed(magnitudes: readonly number[]): readonly number[] {
  return [...magnitudes, ...magnitudes.map((value) => -value)];
}
