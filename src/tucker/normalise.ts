/**
 * Scaling a layer's tensor to norm 1, so that weights of any size can be decomposed in float32.
 *
 * @module
 */
import { MATRICES, type MatrixName } from "../attention/types.ts";

/** How the matrices are scaled before a decomposition, and what undoes it. */
export interface Normalisation {
  /** Norm of the scaled stack: what the core is multiplied by afterwards. */
  readonly norm: number;
  /** What each stacked matrix is multiplied by before, so that the tensor has norm 1. */
  readonly factors: readonly number[];
  /** What Q, K, V and O are multiplied by after the reconstruction: their norms with `balance`, else 1. */
  readonly matrixScales: readonly [number, number, number, number];
}

/** Numbers times a factor, rounded to float32. */
export function scaledNumbers(numbers: Float64Array, factor: number): Float32Array {
  const scaled = new Float32Array(numbers.length);
  for (let i = 0; i < numbers.length; i++) scaled[i] = numbers[i]! * factor;
  return scaled;
}

/** Works out the scaling from the matrices' norms; matrices of zeros stay zero. */
export function normalisation(
  norms: Readonly<Record<MatrixName, number>>,
  { balance, matrices }: { readonly balance: boolean; readonly matrices: readonly MatrixName[] },
): Normalisation {
  const [q, k, v, o] = MATRICES.map((name) => balance ? norms[name] : 1) as [number, number, number, number];
  const scales: Record<MatrixName, number> = { query: q, key: k, value: v, output: o };
  const scaled = matrices.map((name) => scales[name] === 0 ? 0 : norms[name] / scales[name]);
  const norm = Math.hypot(...scaled);
  const factor = (name: MatrixName): number => norm === 0 || scales[name] === 0 ? 0 : 1 / norm / scales[name];
  return { norm, factors: matrices.map(factor), matrixScales: [q, k, v, o] };
}

/** The factor of every matrix, where it is the same; NaN otherwise. */
export function commonFactor(factors: readonly number[]): number {
  return factors.every((factor) => factor === factors[0]) ? factors[0] ?? Number.NaN : Number.NaN;
}
