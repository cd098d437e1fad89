/**
 * From factors back to dense weights, and how far those are from the originals.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { type FloatArray, matmul } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { type MatrixProduct, matrixProducts } from "./matrix_products.ts";
import type { LayerFactors, Layout, MatrixErrors } from "./types.ts";

/**
 * The dense weights that the factors stand for, computed in float64 and rounded. Matrices that weren't decomposed come
 * back as they are.
 *
 * @param layout the one that the weights were decomposed in
 */
export async function reconstruct(
  factors: LayerFactors,
  weights: AttentionWeights,
  layout: Layout = "heads",
): Promise<AttentionWeights> {
  const dense: Partial<Record<MatrixName, Float32Array>> = {};
  for await (const [name, product] of matrixProducts(factors, weights, { layout })) {
    const { left, right, rank } = product;
    const matrix = new Float32Array(left.length / rank * (right.length / rank));
    for await (const block of productBlocks(product)) {
      storeBlock(product, block, matrix);
      release(block.numbers);
    }
    dense[name] = matrix;
  }
  const { hiddenSize, heads, headSize } = weights;
  // Weights may be read when they are asked for: only those that are returned are.
  const of = (name: MatrixName): Float32Array => dense[name] ?? weights[name];
  return {
    hiddenSize,
    heads,
    headSize,
    query: of("query"),
    key: of("key"),
    value: of("value"),
    output: of("output"),
  };
}

/** Errors of a reconstruction. */
export interface ReconstructionErrors {
  /** ‖W − Ŵ‖F / ‖W‖F over all four matrices. */
  readonly relativeError: number;
  readonly matrixErrors: MatrixErrors;
}

/** What the errors of a layer are measured from, besides its weights. */
export interface ErrorSources {
  /** Frobenius norms of the weights. */
  readonly norms: Readonly<Record<MatrixName, number>>;
  readonly layout: Layout;
  /** ‖W − Ŵ‖ / ‖W‖ of matrices where it is known (`projectedErrors`): they aren't looked at again. */
  readonly known?: Partial<Record<MatrixName, number>>;
}

/**
 * Measures ‖W − Ŵ‖ / ‖W‖ entry by entry with float64 differences, so that nothing cancels; 0 for a matrix of zeros given back as zeros.
 * Ŵ itself is rounded to float32 in large layers, unless the error is so small that this could show.
 */
export async function reconstructionErrors(
  factors: LayerFactors,
  weights: AttentionWeights,
  { norms, layout, known = {} }: ErrorSources,
): Promise<ReconstructionErrors> {
  const residuals: Record<MatrixName, number> = { query: 0, key: 0, value: 0, output: 0 };
  for (const name of MATRICES) residuals[name] = (known[name] ?? 0) * norms[name];
  const names = MATRICES.filter((name) => known[name] === undefined);
  for await (const [name, product] of matrixProducts(factors, weights, { layout, names })) {
    const original = weights[name]; // once: it may be read when it is asked for
    const rounded = original.length > FLOAT64_LIMIT ? await residualOf(inFloat32(product), original) : 0;
    residuals[name] = rounded > SHOWS_ROUNDING * norms[name] ? rounded : await residualOf(product, original);
  }
  const ratio = (residual: number, norm: number): number => residual === 0 ? 0 : residual / norm;
  const error = (name: MatrixName): number => ratio(residuals[name], norms[name]);
  return {
    relativeError: ratio(
      Math.hypot(...MATRICES.map((name) => residuals[name])),
      Math.hypot(...MATRICES.map((name) => norms[name])),
    ),
    matrixErrors: { q: error("query"), k: error("key"), v: error("value"), o: error("output") },
  };
}

/** Matrices of at most this many numbers are measured by float64 products alone. */
const FLOAT64_LIMIT = 1 << 18;
/** Relative errors above this are a thousand times the rounding of a float32 product. */
const SHOWS_ROUNDING = 1e-3;

/** ‖W − Ŵ‖. */
async function residualOf(product: BlockProduct, original: Float32Array): Promise<number> {
  let sum = 0;
  for await (const block of productBlocks(product)) {
    sum += squaredDistance(product, block, original);
    release(block.numbers);
  }
  return Math.sqrt(sum);
}

/** A matrix product in either precision. */
interface BlockProduct extends Omit<MatrixProduct, "left" | "right"> {
  readonly left: FloatArray;
  readonly right: FloatArray;
}

function inFloat32(product: MatrixProduct): BlockProduct {
  return { ...product, left: new Float32Array(product.left), right: new Float32Array(product.right) };
}

/** Numbers of a product that are held at once. */
const BLOCK_NUMBERS = 1 << 18;

interface RowBlock {
  readonly firstRow: number;
  readonly rows: number;
  readonly columns: number;
  readonly numbers: FloatArray;
}

/** The product, some rows at a time. */
async function* productBlocks({ left, right, rank }: BlockProduct): AsyncGenerator<RowBlock> {
  const [height, columns] = [left.length / rank, right.length / rank];
  const step = Math.max(1, Math.floor(BLOCK_NUMBERS / columns));
  for (let firstRow = 0; firstRow < height; firstRow += step) {
    const rows = Math.min(step, height - firstRow);
    const part = left.subarray(firstRow * rank, (firstRow + rows) * rank);
    yield { firstRow, rows, columns, numbers: await matmul(part, right, { m: rows, k: rank, n: columns }) };
  }
}

/** Writes a block into a matrix as `AttentionWeights` stores it. */
function storeBlock(
  { transposed }: BlockProduct,
  { firstRow, rows, columns, numbers }: RowBlock,
  dense: Float32Array,
): void {
  if (!transposed) {
    dense.set(numbers, firstRow * columns);
    return;
  }
  const height = dense.length / columns;
  for (let column = 0; column < columns; column++) {
    const start = column * height + firstRow;
    for (let row = 0; row < rows; row++) dense[start + row] = numbers[row * columns + column]!;
  }
}

/** Squared distance of a block from its place in a matrix. */
function squaredDistance(
  { transposed }: BlockProduct,
  { firstRow, rows, columns, numbers }: RowBlock,
  original: Float32Array,
): number {
  let sum = 0;
  if (!transposed) {
    const start = firstRow * columns;
    for (let i = 0; i < numbers.length; i++) {
      const difference = original[start + i]! - numbers[i]!;
      sum += difference * difference;
    }
    return sum;
  }
  const height = original.length / columns;
  for (let column = 0; column < columns; column++) {
    const start = column * height + firstRow;
    for (let row = 0; row < rows; row++) {
      const difference = original[start + row]! - numbers[row * columns + column]!;
      sum += difference * difference;
    }
  }
  return sum;
}
