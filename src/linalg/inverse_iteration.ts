/**
 * Eigenvectors of a symmetric tridiagonal matrix by inverse iteration (after LAPACK's dstein): a few solves with T − λI for each
 * wanted eigenvalue, so that the cost grows with the number of vectors, not with n³.
 *
 * @module
 */

/** A symmetric tridiagonal matrix whose off-diagonal entries aren't negligible. */
export interface UnreducedBlock {
  readonly diagonal: Float64Array;
  /** Entry i stands between i and i+1. */
  readonly offDiagonal: Float64Array;
}

/** Solves for each vector: the first from a random start amplifies it nearly to rounding, the second cleans up. */
const SOLVES = 2;

/**
 * Unit eigenvectors, one after the other (count × n), for eigenvalues in descending order. Those of well separated eigenvalues
 * are orthogonal; those of a cluster are independent (their starts are random) and span its eigenspace, but must be
 * orthonormalised by the caller.
 */
export function inverseIteration(block: UnreducedBlock, values: Float64Array): Float64Array {
  const n = block.diagonal.length;
  const vectors = new Float64Array(values.length * n);
  const norm = infinityNorm(block);
  const random = lehmer();
  for (let index = 0; index < values.length; index++) {
    const factors = factorise(block, values[index]!, norm);
    const vector = vectors.subarray(index * n, (index + 1) * n);
    for (let i = 0; i < n; i++) vector[i] = random() - 0.5;
    for (let solve = 0; solve < SOLVES; solve++) {
      backSolve(factors, vector);
      normalise(vector);
    }
  }
  return vectors;
}

/** P (T − shift·I) = L U with row exchanges between neighbours. */
interface TridiagonalFactors {
  /** Diagonal and two superdiagonals of U. */
  readonly u0: Float64Array;
  readonly u1: Float64Array;
  readonly u2: Float64Array;
  readonly multipliers: Float64Array;
  /** 1 where row i was exchanged with row i+1. */
  readonly exchanged: Uint8Array;
}

function factorise({ diagonal, offDiagonal }: UnreducedBlock, shift: number, norm: number): TridiagonalFactors {
  const n = diagonal.length;
  const u0 = diagonal.map((value) => value - shift);
  const u1 = offDiagonal.slice();
  const u2 = new Float64Array(n);
  const multipliers = new Float64Array(n);
  const exchanged = new Uint8Array(n);
  const smallest = Number.EPSILON * norm;
  for (let i = 0; i < n - 1; i++) {
    const below = offDiagonal[i]!;
    if (Math.abs(u0[i]!) >= Math.abs(below)) {
      const factor = below / (u0[i] === 0 ? smallest : u0[i]!);
      multipliers[i] = factor;
      u0[i + 1]! -= factor * u1[i]!;
    } else {
      const factor = u0[i]! / below;
      exchanged[i] = 1;
      multipliers[i] = factor;
      u0[i] = below;
      const above = u1[i]!;
      u1[i] = u0[i + 1]!;
      u0[i + 1] = above - factor * u1[i]!;
      if (i + 1 < n - 1) {
        u2[i] = u1[i + 1]!;
        u1[i + 1] = -factor * u2[i]!;
      }
    }
  }
  for (let i = 0; i < n; i++) if (Math.abs(u0[i]!) < smallest) u0[i] = u0[i]! < 0 ? -smallest : smallest;
  return { u0, u1, u2, multipliers, exchanged };
}

/** Overwrites x with the solution. */
function backSolve({ u0, u1, u2, multipliers, exchanged }: TridiagonalFactors, x: Float64Array): void {
  const n = x.length;
  for (let i = 0; i < n - 1; i++) {
    if (exchanged[i] === 1) {
      const upper = x[i]!;
      x[i] = x[i + 1]!;
      x[i + 1] = upper - multipliers[i]! * x[i]!;
    } else x[i + 1]! -= multipliers[i]! * x[i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    let value = x[i]!;
    if (i + 1 < n) value -= u1[i]! * x[i + 1]!;
    if (i + 2 < n) value -= u2[i]! * x[i + 2]!;
    x[i] = value / u0[i]!;
  }
}

function infinityNorm({ diagonal, offDiagonal }: UnreducedBlock): number {
  let largest = 0;
  for (let i = 0; i < diagonal.length; i++) {
    const before = i > 0 ? Math.abs(offDiagonal[i - 1]!) : 0;
    const behind = i + 1 < diagonal.length ? Math.abs(offDiagonal[i]!) : 0;
    largest = Math.max(largest, before + Math.abs(diagonal[i]!) + behind);
  }
  return largest || 1;
}

function normalise(vector: Float64Array): void {
  let largest = 0;
  for (const value of vector) largest = Math.max(largest, Math.abs(value));
  let sum = 0;
  for (const value of vector) sum += (value / largest) ** 2;
  const norm = largest * Math.sqrt(sum);
  for (let i = 0; i < vector.length; i++) vector[i]! /= norm;
}

/** The minimal standard generator (Park & Miller 1988), in (0, 1): starts need only be unremarkable, and the same each time. */
function lehmer(): () => number {
  let state = 20250115;
  return () => (state = state * 48271 % 2147483647) / 2147483647;
}
