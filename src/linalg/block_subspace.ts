/**
 * Leading subspaces of large symmetric matrices by Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago & Chelikowsky 2006):
 * almost all matrix products, in float32 where their rounding doesn't show.
 *
 * One round takes a basis U to an orthonormal basis of T(G) U, where the polynomial T is of the first kind and stays within
 * [−1, 1] on [0, c], below the cut c, and grows quickly above it. The cut is the smallest diagonal entry of UᵀGU, which comes with
 * the first product: it lies below the wanted eigenvalues until the basis is good, and then at the cut. Directions stay in order
 * (the orthonormalisation is a QR factorisation), so columns turn into eigenvectors, and scaling them tames the filter's growth.
 *
 * What it is good for: where the spectrum is flat at the cut, the subspace itself is hardly determined, and no method finds it
 * quickly; but then the wrong directions hold nearly as much energy as the right ones, and energy is what a decomposition asks for.
 *
 * @module
 */
import { invertedCholesky } from "./cholesky.ts";
import { matmul } from "./matmul.ts";
import { noise } from "./noise.ts";

/** A symmetric positive semidefinite n×n matrix G, known by its products. */
export interface SubspaceProblem {
  readonly n: number;
  /** Number of directions. */
  readonly rank: number;
  /** G @ block, both n × rank. */
  product(block: Float32Array): Promise<Float32Array>;
  /** 2 (scale·G @ current − current) − before, where that is to be had in one go. */
  step?(current: Float32Array, before: Float32Array, scale: number): Promise<Float32Array> | undefined;
}

/** The largest degree of a filter: higher ones gain less than another round with a better cut. */
const MOST_PRODUCTS = 4;
/**
 * Growth of the filter from the cut to the largest eigenvalue, which limits its degree. Where columns are nearly eigenvectors, scaling
 * them takes the growth out again; other blocks it makes as ill-conditioned as it is large.
 */
const MOST_GROWTH = { eigenvectors: 2 ** 21, any: 2 ** 14 } as const;
/** Ratio of cut and largest eigenvalue below which float32 products don't resolve the directions at the cut. */
const SMALLEST_CUT = 1e-5;
/** Smallest pivot of the filtered block, its columns scaled to norm 1, after which it still is orthonormalised to 1e-7. */
const SMALLEST_PIVOT = 1e-9;

/** What a filter starts from. */
export interface FilterStart {
  /** n × rank, orthonormal columns. */
  readonly basis: Float64Array;
  /** G @ basis, where it is known. */
  readonly image?: Float32Array;
  /** What the columns are: nearly eigenvectors, as after some filters, bear a filter of higher degree. */
  readonly columns?: keyof typeof MOST_GROWTH;
}

/**
 * An orthonormal basis (n × rank) that holds more energy tr(UᵀGU) than the basis given, by one filter of up to four products;
 * undefined where the method can't be trusted: the matrix is zero, of lower rank than wanted, or its directions at the cut are lost in
 * float32 beside the largest.
 */
export async function filteredBasis(
  problem: SubspaceProblem,
  { basis, image: known, columns = "any" }: FilterStart,
): Promise<Float64Array | undefined> {
  const { n, rank } = problem;
  let before: Float32Array = new Float32Array(basis);
  const image = known ?? await problem.product(before);
  const { least, most } = extremes(before, image, rank);
  if (!(least > SMALLEST_CUT * most)) return undefined;
  const scale = 2 / least;
  let current: Float32Array = new Float32Array(image.length);
  for (let i = 0; i < image.length; i++) current[i] = scale * image[i]! - before[i]!;
  const degree = Math.floor(Math.acosh(MOST_GROWTH[columns]) / Math.acosh(2 * most / least - 1));
  for (let products = 2; products <= Math.min(degree, MOST_PRODUCTS); products++) {
    [before, current] = [current, await nextBlock(problem, { current, before, scale })];
  }
  const filtered = await orthonormalBlock(current, n, rank);
  return filtered === undefined && columns !== "any" ? await filteredBasis(problem, { basis, image }) : filtered;
}

interface LastBlocks {
  readonly current: Float32Array;
  readonly before: Float32Array;
  readonly scale: number;
}

/** The recurrence of the polynomials; `before` isn't needed afterwards. */
async function nextBlock(problem: SubspaceProblem, { current, before, scale }: LastBlocks): Promise<Float32Array> {
  const known = problem.step?.(current, before, scale);
  if (known !== undefined) return await known;
  const next = await problem.product(current);
  for (let i = 0; i < next.length; i++) before[i] = 2 * (scale * next[i]! - current[i]!) - before[i]!;
  return before;
}

/** Smallest and largest diagonal entry of UᵀGU. */
function extremes(basis: Float32Array, image: Float32Array, rank: number): { least: number; most: number } {
  const quotients = new Float64Array(rank);
  for (let row = 0; row < basis.length; row += rank) {
    for (let j = 0; j < rank; j++) quotients[j]! += basis[row + j]! * image[row + j]!;
  }
  return { least: Math.min(...quotients), most: Math.max(...quotients) };
}

/**
 * A block whose product with G is a first basis: the coordinate directions of the largest diagonal entries, mixed with noise
 * so that no direction is missed.
 *
 * @param diagonal of G, n numbers
 */
export function startBlock(diagonal: Float64Array, rank: number): Float32Array {
  const n = diagonal.length;
  const block = noise(n * rank);
  const scale = 1 / Math.sqrt(n);
  for (let i = 0; i < block.length; i++) block[i]! *= scale;
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => diagonal[b]! - diagonal[a]!);
  for (let j = 0; j < rank; j++) block[order[j]! * rank + j]! += 1;
  return block;
}

/**
 * An orthonormal basis of a block's columns (n × rank), in order, by one Cholesky QR in float64; undefined where they are nearly
 * dependent.
 */
export async function orthonormalBlock(
  block: Float32Array | Float64Array,
  n: number,
  rank: number,
): Promise<Float64Array | undefined> {
  const columns = block instanceof Float64Array ? block : new Float64Array(block);
  const gram = await matmul(columns, columns, { m: rank, k: n, n: rank, transposeA: true });
  const scales = Float64Array.from({ length: rank }, (_, i) => 1 / Math.sqrt(gram[i * (rank + 1)]!));
  for (let i = 0; i < rank; i++) for (let j = 0; j < rank; j++) gram[i * rank + j]! *= scales[i]! * scales[j]!;
  const factor = await invertedCholesky(gram, rank, SMALLEST_PIVOT);
  if (factor === undefined) return undefined;
  const { inverse } = factor;
  for (let i = 0; i < rank; i++) for (let j = 0; j <= i; j++) inverse[i * rank + j]! *= scales[j]!;
  return await matmul(columns, inverse, { m: n, k: rank, n: rank, transposeB: true });
}
