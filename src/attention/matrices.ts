/**
 * Matrices of projections, read from where they are stored.
 *
 * @module
 */
import { release } from "../release.ts";
import type { HeadView } from "./heads.ts";
import type { OutputView, Site } from "./site.ts";
import { type MatrixNumbers, readMatrix } from "./trace/matrix.ts";
import type { Projection } from "./trace/projection.ts";

/** What the context is multiplied by on its way to the output, apart from the weights. */
export function outputScale({ value, output }: Site): number {
  return value.scale * output.scale * output.projection.alpha;
}

/** A projection's matrix as d × N, whatever its layout in the file. */
export function projectionMatrix({ graph, stored, rows, columns }: Projection, folder: string): MatrixNumbers {
  return readMatrix(graph, stored, { rows, columns, folder });
}

/** The matrix of one of query, key and value, d × (H·h). */
export function extractColumns(view: HeadView, folder: string): Float32Array {
  const { rows, columns: width } = view.projection;
  const { data: matrix, owned } = projectionMatrix(view.projection, folder);
  const { columns } = view;
  if (owned && isEveryIndex(columns, width)) return matrix;
  const result = new Float32Array(rows * columns.length);
  for (let r = 0, at = 0; r < rows; r++) {
    for (let c = 0; c < columns.length; c++) result[at++] = matrix[r * width + columns[c]!]!;
  }
  if (owned) release(matrix);
  return result;
}

/** Are these 0, 1, … count − 1? */
export function isEveryIndex(indices: Int32Array, count: number): boolean {
  return indices.length === count && indices.every((index, i) => index === i);
}

/** The output matrix, (H·h) × d. */
export function extractRows({ projection, rows }: OutputView, folder: string): Float32Array {
  const { data: matrix, owned } = projectionMatrix(projection, folder);
  if (owned && isEveryIndex(rows, projection.rows)) return matrix;
  const width = projection.columns;
  const result = new Float32Array(rows.length * width);
  rows.forEach((row, i) => result.set(matrix.subarray(row * width, (row + 1) * width), i * width));
  if (owned) release(matrix);
  return result;
}
