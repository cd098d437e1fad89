/**
 * Errors of a decomposition from what its sweeps have computed, without a look at the weights.
 *
 * @module
 */
import type { MatrixName } from "../attention/types.ts";
import type { HooiResult } from "./hooi.ts";
import type { Ranks } from "./types.ts";

/** A decomposition of stacked matrices. */
export interface Projected {
  readonly result: Pick<HooiResult, "u3" | "core" | "projected">;
  readonly ranks: Ranks;
  /** The stack, with the norm that each matrix had in the tensor. */
  readonly matrices: readonly { readonly name: MatrixName; readonly norm: number }[];
}

/** Errors below are left to others: there the difference of squares has lost digits. */
const LEAST_ERROR = 0.05;

/**
 * ‖W − Ŵ‖ / ‖W‖ of each matrix whose error is 0.05 or more, exact to about 1e-6. With C = U1ᵀ W U2 for all heads, and Ĉ what the core gives
 * in its place, ‖W − Ŵ‖² = ‖W‖² − 2⟨C, Ĉ⟩ + ‖Ĉ‖².
 */
export function projectedErrors({ result, ranks, matrices }: Projected): Partial<Record<MatrixName, number>> {
  const errors: Partial<Record<MatrixName, number>> = {};
  for (const [slot, { name, norm }] of matrices.entries()) {
    const error = Math.sqrt(squaredResidual({ result, ranks, matrices }, slot)) / norm;
    if (error >= LEAST_ERROR) errors[name] = error;
  }
  return errors;
}

function squaredResidual(
  { result: { u3, core, projected }, ranks: [r1, r2, r3], matrices }: Projected,
  slot: number,
): number {
  const heads = core.length / (r1 * r2 * r3);
  let kept = 0;
  for (let a = 0; a < r1; a++) {
    for (let i = 0; i < heads; i++) {
      const row = ((a * matrices.length + slot) * heads + i) * r2;
      for (let j = 0; j < r2; j++) {
        let estimate = 0;
        for (let k = 0; k < r3; k++) estimate += u3[slot * r3 + k]! * core[((a * r2 + j) * r3 + k) * heads + i]!;
        kept += estimate * (2 * projected[row + j]! - estimate);
      }
    }
  }
  return Math.max(0, matrices[slot]!.norm ** 2 - kept);
}
