/**
 * Orthonormal bases of the columns of a tall matrix, in float64.
 *
 * @module
 */
import { invertedCholesky } from "./cholesky.ts";
import { matmul } from "./matmul.ts";

/**
 * An m×n matrix with orthonormal columns that span the columns of `matrix` (m×n, m ≥ n); where those are dependent, the
 * missing directions are filled in. Columns that are nearly orthonormal already are only polished; others take Cholesky QR, twice
 * (Yamamoto et al. 2015), which is almost all matrix products; where the Gram matrix is too ill-conditioned for it, Householder.
 */
export async function orthonormalColumns(matrix: Float64Array, m: number, n: number): Promise<Float64Array> {
  if (matrix.length !== m * n || m < n) {
    throw new RangeError(`orthonormalColumns: ${matrix.length} numbers for ${m}×${n}, which must be tall`);
  }
  const scaled = withUnitColumns(matrix, m, n);
  let current = scaled;
  for (let round = 0; round < ROUNDS; round++) {
    const gram = await matmul(current, current, { m: n, k: m, n, transposeA: true });
    if (deviation(gram, n) <= NEARLY_ORTHONORMAL) return await polished(current, gram, { m, n });
    const factor = await invertedCholesky(gram, n, SMALLEST_PIVOT);
    if (factor === undefined) break;
    current = await matmul(current, factor.inverse, { m, k: n, n, transposeB: true });
  }
  return householderQ(scaled, m, n);
}

/** Cholesky rounds: the second leaves columns orthonormal to rounding, which the third Gram matrix confirms. */
const ROUNDS = 3;
/** Deviation of the Gram matrix from the identity that one polishing step squares to below rounding. */
const NEARLY_ORTHONORMAL = 1e-8;

/** Largest entry of |G − I|. */
function deviation(gram: Float64Array, n: number): number {
  let largest = 0;
  for (let i = 0; i < gram.length; i++) {
    const difference = Math.abs(gram[i]! - (i % (n + 1) === 0 ? 1 : 0));
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

/** X (3I − G)/2: one Newton–Schulz step towards the nearest matrix with orthonormal columns. */
function polished(
  matrix: Float64Array,
  gram: Float64Array,
  { m, n }: { readonly m: number; readonly n: number },
): Promise<Float64Array> {
  const step = gram.map((value, i) => (i % (n + 1) === 0 ? 1.5 : 0) - value / 2);
  return matmul(matrix, step, { m, k: n, n });
}

/** Columns scaled to norm 1, so that small ones aren't taken for dependent; zero columns stay. */
function withUnitColumns(matrix: Float64Array, m: number, n: number): Float64Array {
  const norms = new Float64Array(n);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) norms[j]! += matrix[i * n + j]! ** 2;
  const result = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) result[i * n + j] = norms[j] === 0 ? 0 : matrix[i * n + j]! / Math.sqrt(norms[j]!);
  }
  return result;
}

/** Smallest pivot of a unit-diagonal Gram matrix after which two Cholesky steps still reach full accuracy. */
const SMALLEST_PIVOT = 1e-12;

/** Q (m×n) of the Householder QR: orthonormal whatever the rank. */
function householderQ(matrix: Float64Array, m: number, n: number): Float64Array {
  // Columns are kept as rows, so that the reflections run over contiguous numbers.
  const columns = Array.from({ length: n }, (_, j) => Float64Array.from({ length: m }, (_, i) => matrix[i * n + j]!));
  const reflectors: Float64Array[] = [];
  for (let j = 0; j < n; j++) {
    const reflector = columns[j]!.slice();
    reflector.fill(0, 0, j);
    const norm = Math.hypot(...chunkNorms(reflector));
    reflector[j]! += reflector[j]! < 0 ? -norm : norm;
    const length = Math.hypot(...chunkNorms(reflector));
    if (length === 0) reflector[j] = 1; // nothing left of this column: any direction will do
    else for (let i = j; i < m; i++) reflector[i]! /= length;
    for (let k = j + 1; k < n; k++) reflect(columns[k]!, reflector, j);
    reflectors.push(reflector);
  }
  const result = new Float64Array(m * n);
  for (let j = 0; j < n; j++) {
    const column = new Float64Array(m);
    column[j] = 1;
    for (let k = n - 1; k >= 0; k--) reflect(column, reflectors[k]!, k);
    for (let i = 0; i < m; i++) result[i * n + j] = column[i]!;
  }
  return result;
}

/** Norms of pieces: `Math.hypot` takes limited arguments, and the squares must not underflow together. */
function chunkNorms(vector: Float64Array): number[] {
  const norms: number[] = [];
  for (let start = 0; start < vector.length; start += 64) {
    norms.push(Math.hypot(...vector.subarray(start, start + 64)));
  }
  return norms;
}

/** v ← (I − 2uuᵀ)v for a unit vector u that is 0 before `start`. */
function reflect(vector: Float64Array, unit: Float64Array, start: number): void {
  let dot = 0;
  for (let i = start; i < vector.length; i++) dot += unit[i]! * vector[i]!;
  for (let i = start; i < vector.length; i++) vector[i]! -= 2 * dot * unit[i]!;
}
