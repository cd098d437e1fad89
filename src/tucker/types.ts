/**
 * Names and shapes of the decomposition, as in TensorLLM (arXiv 2501.15674): d hidden size, H heads, h head size.
 * Every array is row-major.
 *
 * @module
 */

import type { MatrixName } from "../attention/types.ts";

/** Compression modes of one layer, by the authors' names. */
export type LayerMode = "4d-tucker" | "3d-tucker" | "laser" | "4d-tucker-laser" | "none";
/** Modes that a user can ask for; `auto` takes per layer the best of the modes at equal parameters. */
export type Mode = LayerMode | "auto";

/** How the weights become the d×h×4×H tensor: by real attention heads, or as the authors' code views them. */
export type Layout = "heads" | "reference";

/** (r1, r2, r3): ranks of the hidden, head-size and stack modes. */
export type Ranks = readonly [number, number, number];

/** Relative Frobenius error of each projection; a matrix that was not touched has 0. */
export interface MatrixErrors {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly o: number;
}

/** `W ≈ core ×1 u1 ×2 u2 ×3 u3`, columns of u1, u2, u3 orthonormal. */
export interface TuckerFactors {
  readonly ranks: Ranks;
  /** d × r1. */
  readonly u1: Float32Array;
  /** h × r2. */
  readonly u2: Float32Array;
  /** 4 × r3. */
  readonly u3: Float32Array;
  /** r1 × r2 × r3 × H. */
  readonly core: Float32Array;
  /** With `balance`: what each of Q, K, V, O is multiplied by after the reconstruction; all 1 otherwise. */
  readonly matrixScales: readonly [number, number, number, number];
}

/** One d×h×H projection alone: `W ≈ core ×1 u1 ×2 u2` (mode `3d-tucker`). */
export interface Tucker3Factors {
  readonly ranks: readonly [number, number];
  /** d × r1. */
  readonly u1: Float32Array;
  /** h × r2. */
  readonly u2: Float32Array;
  /** r1 × r2 × H. */
  readonly core: Float32Array;
}

/** A truncated singular value decomposition `W ≈ left @ right` (mode `laser`). */
export interface LowRankFactors {
  readonly rank: number;
  /** m × rank, the singular values absorbed. */
  readonly left: Float32Array;
  /** rank × n. */
  readonly right: Float32Array;
}

/** What a decomposition of one layer holds, by mode. */
export type LayerFactors =
  | { readonly kind: "tucker4"; readonly factors: TuckerFactors }
  | { readonly kind: "tucker3"; readonly matrices: Partial<Record<MatrixName, Tucker3Factors>> }
  | { readonly kind: "low-rank"; readonly matrices: Partial<Record<MatrixName, LowRankFactors>> };

/** A decomposed attention block with its measured errors. */
export interface LayerDecomposition {
  readonly factors: LayerFactors;
  /** ‖W − Ŵ‖F / ‖W‖F of the layer's tensor, from a float64 residual. */
  readonly relativeError: number;
  readonly matrixErrors: MatrixErrors;
  /** HOOI sweeps done, and whether they met the tolerance. */
  readonly sweeps: number;
  readonly converged: boolean;
  readonly seconds: number;
}
