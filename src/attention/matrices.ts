/**
 * Matrices of projections, read from where they are stored.
 *
 * @module
 */
import { type HalfSource, halfSource } from "../onnx/half_source.ts";
import type { TensorProto } from "../onnx/node.ts";
import { tensorShape } from "../onnx/tensor.ts";
import { release } from "../release.ts";
import type { HeadView } from "./heads.ts";
import type { OutputView, Site } from "./site.ts";
import { type MatrixNumbers, readMatrix } from "./trace/matrix.ts";
import { type Projection, storedTensor } from "./trace/projection.ts";
import type { HalfMatrix } from "./types.ts";

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
export function isEveryIndex(indices: Int32Array | readonly number[], count: number = indices.length): boolean {
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

/** The stored tensors that the matrices of a block lie in: those that share one name it by the same object. */
export class HalfSources {
  readonly #folder: string;
  readonly #sources = new Map<TensorProto, HalfSource | undefined>();

  /** @param folder of external data */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `extractColumns` before it is read. */
  columns({ projection, columns: index }: HeadView): HalfMatrix | undefined {
    const whole = this.#whole(projection);
    return whole && { ...whole, columns: index.length, index, indexed: "columns" };
  }

  /** `extractRows` before it is read. */
  rows({ projection, rows: index }: OutputView): HalfMatrix | undefined {
    const whole = this.#whole(projection);
    return whole && { ...whole, rows: index.length, index, indexed: "rows" };
  }

  #whole(projection: Projection): Omit<HalfMatrix, "index" | "indexed"> | undefined {
    const { rows, columns } = projection;
    const found = storedTensor(projection);
    if (found === undefined) return undefined;
    const { tensor, transposed } = found;
    const [height, width, ...more] = tensorShape(tensor);
    const fits = more.length === 0 &&
      (transposed ? height === columns && width === rows : height === rows && width === columns);
    if (!this.#sources.has(tensor)) this.#sources.set(tensor, halfSource(tensor, this.#folder));
    const source = this.#sources.get(tensor);
    if (!fits || source === undefined) return undefined;
    return { source, rows, columns, rowStride: transposed ? 1 : columns, columnStride: transposed ? rows : 1 };
  }
}
