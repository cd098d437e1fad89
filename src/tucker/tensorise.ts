/**
 * From the four projections of a layer to one tensor, and back.
 *
 * The paper's tensor W is d×h×4×H (hidden, head size, stack, head). It is stored here as d×S×H×h, S being the projections
 * taken (4, or 1 for one matrix alone): then a row of the tensor is a row of the weights, the hidden mode comes first and the
 * head-size mode last, so that the two large mode products are plain matrix products.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import type { FloatArray } from "../linalg/mod.ts";
import type { Layout } from "./types.ts";

/** Which layer an error text is about. */
export interface LayerPlace {
  readonly layer: number;
  readonly name: string;
}

/** Sizes of a layer's tensor as stored. */
export interface TensorSizes {
  /** d. */
  readonly hidden: number;
  /** S: projections in the stack. */
  readonly stack: number;
  /** H. */
  readonly heads: number;
  /** h. */
  readonly headSize: number;
}

/**
 * Frobenius norms of the projections.
 *
 * @throws TuckerdError `invalid` naming layer and matrix if an entry is NaN or infinite.
 */
export function matrixNorms(weights: AttentionWeights, where: LayerPlace): Record<MatrixName, number> {
  const norm = (name: MatrixName): number => {
    const sum = sumOfSquares(weights[name]);
    if (Number.isFinite(sum)) return Math.sqrt(sum);
    const index = weights[name].findIndex((value) => !Number.isFinite(value));
    throw new TuckerdError(
      "invalid",
      `layer ${where.layer} (${where.name}): the ${name} weights hold ${weights[name][index]} at position ${index}; ` +
        `only finite weights can be decomposed: check the model file`,
      { fields: { layer: where.layer, matrix: name } },
    );
  };
  return { query: norm("query"), key: norm("key"), value: norm("value"), output: norm("output") };
}

/** Σ x² in float64, where squares of float32 numbers neither overflow nor underflow. */
export function sumOfSquares(numbers: Float32Array): number {
  let even = 0, odd = 0; // two sums: the additions overlap
  for (let i = 1; i < numbers.length; i += 2) {
    even += numbers[i - 1]! * numbers[i - 1]!;
    odd += numbers[i]! * numbers[i]!;
  }
  const last = numbers.length % 2 === 1 ? numbers[numbers.length - 1]! : 0;
  return even + odd + last * last;
}

/** @throws TuckerdError `invalid` if the weights don't have the sizes they claim, or not those that the layout needs. */
export function checkWeights(weights: AttentionWeights, layout: Layout, where: LayerPlace): void {
  const { hiddenSize, heads, headSize } = weights;
  for (const name of MATRICES) {
    const stored = weights.halves?.(name);
    const count = stored === undefined ? weights[name].length : stored.rows * stored.columns; // what is stored isn't read yet
    if (count !== hiddenSize * heads * headSize) {
      throw new TuckerdError(
        "invalid",
        `layer ${where.layer} (${where.name}): the ${name} weights hold ${count} numbers; ` +
          `expected ${hiddenSize} × ${heads} heads × ${headSize}`,
      );
    }
  }
  if (layout === "reference" && hiddenSize !== heads * headSize) {
    throw new TuckerdError(
      "invalid",
      `layer ${where.layer} (${where.name}): layout "reference" views each ${
        heads * headSize
      }×${hiddenSize} matrix as ` +
        `${hiddenSize}×${heads}×${headSize}, which needs heads × head size = hidden size; use layout "heads"`,
    );
  }
}

/** A selection of projections, each multiplied by a factor, in one layout. */
export interface Tensorisation {
  readonly matrices: readonly MatrixName[];
  /** One for each matrix. */
  readonly factors: readonly number[];
  readonly layout: Layout;
}

/**
 * The d×S×H×h tensor of the chosen projections, in the precision of `Type`. Slice s, i is W_s,i, with W_O,i transposed; in
 * layout `reference` every weight matrix is transposed first, as the authors' `.view(d, H, h)` of PyTorch's [out, in]
 * weights does.
 */
export function tensorise<T extends FloatArray>(
  weights: AttentionWeights,
  { matrices, factors, layout }: Tensorisation,
  Type: new (length: number) => T,
): T {
  const { hiddenSize, heads, headSize } = weights;
  const width = heads * headSize;
  const tensor = new Type(hiddenSize * matrices.length * width);
  for (const [slot, name] of matrices.entries()) {
    const place = { start: slot * width, stride: matrices.length * width, factor: factors[slot]! };
    placeMatrix(weights[name], tensor, {
      ...place,
      rows: hiddenSize,
      width,
      transposed: isTransposed(name, layout),
    });
  }
  return tensor;
}

/** Does the tensor hold this matrix transposed? W_O is stored (H·h)×d, the others d×(H·h). */
export function isTransposed(name: MatrixName, layout: Layout): boolean {
  return (name === "output") !== (layout === "reference");
}

/** Where the rows of a matrix go in a tensor. */
export interface MatrixPlacing {
  readonly rows: number;
  readonly width: number;
  /** Where the first row begins in the tensor, and how far its rows are apart. */
  readonly start: number;
  readonly stride: number;
  /** What every number is multiplied by. */
  readonly factor: number;
  /** The matrix is stored width × rows. */
  readonly transposed: boolean;
}

/** Copies a matrix into a tensor, row by row. */
export function placeMatrix(source: FloatArray, target: FloatArray, placing: MatrixPlacing): void {
  if (placing.transposed) copyTransposed(source, target, placing);
  else copyRows(source, target, placing);
}

type Rows = Omit<MatrixPlacing, "transposed">;

function copyRows(source: FloatArray, target: FloatArray, { rows, width, start, stride, factor }: Rows): void {
  for (let row = 0; row < rows; row++) {
    const from = row * width;
    const to = start + row * stride;
    for (let i = 0; i < width; i++) target[to + i] = source[from + i]! * factor;
  }
}

/** Side of the blocks in which a transposition runs, so that both sides stay in the cache. */
const BLOCK = 32;

function copyTransposed(source: FloatArray, target: FloatArray, placing: Rows): void {
  const { rows, width, start, stride, factor } = placing;
  for (let rowStart = 0; rowStart < rows; rowStart += BLOCK) {
    const rowEnd = Math.min(rows, rowStart + BLOCK);
    for (let columnStart = 0; columnStart < width; columnStart += BLOCK) {
      const columnEnd = Math.min(width, columnStart + BLOCK);
      for (let row = rowStart; row < rowEnd; row++) {
        const to = start + row * stride;
        for (let i = columnStart; i < columnEnd; i++) target[to + i] = source[i * rows + row]! * factor;
      }
    }
  }
}
