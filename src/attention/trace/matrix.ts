/**
 * Matrices of projections as files store them: plain, quantised per tensor or per column, or in blocks of a few bits
 * (com.microsoft.MatMulNBits). Quantised ones are read as the real numbers that they stand for.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
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
    readonly bits: number;
    readonly blockSize: number;
  };

/** Sizes of a matrix as it acts on row vectors. */
export interface MatrixSizes {
  readonly rows: number;
  readonly columns: number;
}

/** Reads a matrix as rows × columns. The result may be a view of the file: don't write to it. */
export function readMatrix(
  graph: Graph,
  stored: StoredMatrix,
  { rows, columns, folder }: MatrixSizes & { readonly folder: string },
): Float32Array {
  const data = constantArray(graph, stored.name, folder).data;
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
      const zeroPoints = stored.zeroPoints === undefined
        ? undefined
        : constantArray(graph, stored.zeroPoints, folder).data;
      return readBlocks(data, { ...stored, scales, zeroPoints, rows, columns });
    }
  }
}

/**
 * MatMulNBits: column n is stored as blocks of `blockSize` numbers, each with a scale and a zero point, the first number in
 * the lowest bits. Without zero points the middle of the range stands for 0.
 */
function readBlocks(
  packed: ArrayLike<number>,
  { bits, blockSize, scales, zeroPoints, rows, columns }: MatrixSizes & {
    readonly bits: number;
    readonly blockSize: number;
    readonly scales: ArrayLike<number>;
    readonly zeroPoints: ArrayLike<number> | undefined;
  },
): Float32Array {
  const blocks = Math.ceil(rows / blockSize);
  const perByte = 8 / bits;
  const bytesPerBlock = blockSize / perByte;
  const zerosPerColumn = Math.ceil(blocks / perByte);
  const number = (bytes: ArrayLike<number>, start: number, i: number): number =>
    (bytes[start + Math.floor(i / perByte)]! >> (i % perByte * bits)) & (2 ** bits - 1);
  const matrix = new Float32Array(rows * columns);
  for (let n = 0; n < columns; n++) {
    for (let block = 0; block < blocks; block++) {
      const zero = zeroPoints === undefined ? 2 ** (bits - 1) : number(zeroPoints, n * zerosPerColumn, block);
      const scale = scales[n * blocks + block]!;
      const start = (n * blocks + block) * bytesPerBlock;
      for (let i = 0; i < blockSize && block * blockSize + i < rows; i++) {
        matrix[(block * blockSize + i) * columns + n] = (number(packed, start, i) - zero) * scale;
      }
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
