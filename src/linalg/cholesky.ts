/**
 * Inverse Cholesky factors, by blocks: almost all of the work is in matrix products.
 *
 * @module
 */
import { matmul } from "./matmul.ts";

/** An inverse Cholesky factor and how near the matrix was to being singular. */
export interface InverseCholesky {
  /** L⁻¹ of A = L Lᵀ: n × n, lower triangular. */
  readonly inverse: Float64Array;
  /** The smallest pivot: for a unit diagonal, the smallest squared distance of a column from the span of those before. */
  readonly smallestPivot: number;
}

/**
 * L⁻¹ of the Cholesky factor A = L Lᵀ of a symmetric n×n matrix (its lower triangle is read); undefined where a pivot isn't
 * above `smallest`.
 *
 * Blocks: with A = [A₁ ·; B A₂] and M₁ = L₁⁻¹, the lower left of L is W = B M₁ᵀ, the rest A₂ − W Wᵀ = L₂ L₂ᵀ, and the lower
 * left of L⁻¹ is −L₂⁻¹ W M₁.
 */
export async function invertedCholesky(
  matrix: Float64Array,
  n: number,
  smallest: number,
): Promise<InverseCholesky | undefined> {
  if (n <= PLAIN_SIZE) return plainInverse(matrix, n, smallest);
  const first = Math.ceil(n / 2);
  const rest = n - first;
  const upper = await invertedCholesky(
    block(matrix, n, { row: 0, column: 0, rows: first, columns: first }),
    first,
    smallest,
  );
  if (upper === undefined) return undefined;
  const below = block(matrix, n, { row: first, column: 0, rows: rest, columns: first });
  const w = await matmul(below, upper.inverse, { m: rest, k: first, n: first, transposeB: true });
  const schur = block(matrix, n, { row: first, column: first, rows: rest, columns: rest });
  const square = await matmul(w, w, { m: rest, k: first, n: rest, transposeB: true });
  for (let i = 0; i < schur.length; i++) schur[i]! -= square[i]!;
  const lower = await invertedCholesky(schur, rest, smallest);
  if (lower === undefined) return undefined;
  const left = await matmul(w, upper.inverse, { m: rest, k: first, n: first });
  const corner = await matmul(lower.inverse, left, { m: rest, k: rest, n: first });
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < first; i++) inverse.set(upper.inverse.subarray(i * first, (i + 1) * first), i * n);
  for (let i = 0; i < rest; i++) {
    const row = inverse.subarray((first + i) * n, (first + i + 1) * n);
    for (let j = 0; j < first; j++) row[j] = -corner[i * first + j]!;
    row.set(lower.inverse.subarray(i * rest, (i + 1) * rest), first);
  }
  return { inverse, smallestPivot: Math.min(upper.smallestPivot, lower.smallestPivot) };
}

/** Up to this size plain loops are quicker than calls. */
const PLAIN_SIZE = 32;

interface BlockPlace {
  readonly row: number;
  readonly column: number;
  readonly rows: number;
  readonly columns: number;
}

/** A copy of a block of a matrix with rows of `width` numbers. */
function block(matrix: Float64Array, width: number, { row, column, rows, columns }: BlockPlace): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const start = (row + i) * width + column;
    result.set(matrix.subarray(start, start + columns), i * columns);
  }
  return result;
}

function plainInverse(matrix: Float64Array, n: number, smallest: number): InverseCholesky | undefined {
  const factor = new Float64Array(n * n);
  let smallestPivot = Infinity;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= factor[i * n + k]! * factor[j * n + k]!;
      if (i > j) factor[i * n + j] = sum / factor[j * n + j]!;
      else if (!(sum > smallest)) return undefined;
      else {
        smallestPivot = Math.min(smallestPivot, sum);
        factor[i * n + i] = Math.sqrt(sum);
      }
    }
  }
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const row = inverse.subarray(i * n, i * n + n);
    for (let k = 0; k < i; k++) {
      const weight = factor[i * n + k]!;
      for (let j = 0; j <= k; j++) row[j]! -= weight * inverse[k * n + j]!;
    }
    const pivot = factor[i * n + i]!;
    for (let j = 0; j < i; j++) row[j]! /= pivot;
    row[i] = 1 / pivot;
  }
  return { inverse, smallestPivot };
}
