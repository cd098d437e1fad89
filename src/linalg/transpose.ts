/**
 * Transposition.
 *
 * @module
 */
import type { FloatArray } from "./matmul.ts";

/** The transpose (columns × rows) of a rows × columns matrix. */
export function transposed<T extends FloatArray>(matrix: T, rows: number, columns: number): T {
  const result = new (matrix.constructor as new (length: number) => T)(matrix.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]!;
  return result;
}
