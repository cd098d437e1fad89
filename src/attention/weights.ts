/**
 * Takes the weights of a block out of the graph, in the layout of `AttentionWeights`.
 *
 * @module
 */
import type { OnnxModel } from "../onnx/model.ts";
import { release } from "../release.ts";
import { analyse, locatedBlock } from "./find.ts";
import type { HeadView } from "./heads.ts";
import type { OutputView, Site } from "./site.ts";
import { type MatrixNumbers, readMatrix } from "./trace/matrix.ts";
import type { Projection } from "./trace/projection.ts";
import type { AttentionBiases, AttentionBlock, AttentionWeights } from "./types.ts";

/** Weights and biases of one block. Disposing it gives the memory of the weights that were read back at once. */
export interface ExtractedWeights extends Disposable {
  /** Gives the memory of the weights that were read back at once; those that are asked for again are read again. */
  forget(): void;
  readonly weights: AttentionWeights;
  readonly biases: AttentionBiases;
}

/**
 * Weights and biases of a block that `findAttention` found in this model. Each matrix is read when it is first asked for, since
 * who needs the sizes and biases alone shouldn't pay for weights; the arrays are the caller's.
 *
 * @throws TuckerdError "bad-model" if a tensor can't be read; RangeError if the block isn't this model's.
 */
export function extractWeights(model: OnnxModel, block: AttentionBlock): ExtractedWeights {
  const { sites: [site], ...located } = locatedBlock(analyse(model), block.layer);
  const { hiddenSize, heads, headSize } = located;
  const read = {
    query: once(() => extractColumns(site.query, model.folder)),
    key: once(() => extractColumns(site.key, model.folder)),
    value: once(() => extractColumns(site.value, model.folder)),
    output: once(() => extractRows(site.output, model.folder)),
  };
  const weights: AttentionWeights = {
    hiddenSize,
    heads,
    headSize,
    get query() {
      return read.query();
    },
    get key() {
      return read.key();
    },
    get value() {
      return read.value();
    },
    get output() {
      return read.output();
    },
  };
  return {
    weights,
    biases: biasesOf(site, located.valueBiasInside === true),
    forget: () => {
      for (const matrix of Object.values(read)) matrix.forget();
    },
    [Symbol.dispose]: () => {
      for (const matrix of Object.values(read)) matrix.discard();
    },
  };
}

interface LazyMatrix {
  (): Float32Array;
  /** Releases the matrix if it was read. */
  forget(): void;
  /** The same, and it can't be read any more. */
  discard(): void;
}

function once(read: () => Float32Array): LazyMatrix {
  let value: Float32Array | undefined;
  let discarded = false;
  const get = (): Float32Array => {
    if (discarded) throw new TypeError("weights were read after they were disposed");
    return value ??= read();
  };
  const forget = (): void => {
    if (value !== undefined) release(value);
    value = undefined;
  };
  const discard = (): void => {
    discarded = true;
    forget();
  };
  return Object.assign(get, { forget, discard });
}

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
function isEveryIndex(indices: Int32Array, count: number): boolean {
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

/** See `AttentionBiases`: the value's is given as it is added where it stays inside, else as it reaches the output projection. */
function biasesOf(site: Site, inside: boolean): AttentionBiases {
  const { query, key, value, output } = site;
  const scale = inside ? 1 : outputScale(site);
  return {
    ...(query.bias === undefined ? {} : { query: query.bias.slice() }),
    ...(key.bias === undefined ? {} : { key: key.bias.slice() }),
    ...(value.bias === undefined ? {} : { value: value.bias.map((number) => number * scale) }),
    ...(output.bias === undefined ? {} : { output: output.bias.slice() }),
  };
}
