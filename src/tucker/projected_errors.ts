/**
 * Errors of a decomposition from what its sweeps have computed, without a look at the weights.
 *
 * @module
 */
import type { MatrixName } from "../attention/types.ts";
import { plainProduct } from "../linalg/mod.ts";
import type { HooiResult } from "./hooi.ts";

/** A decomposition of stacked matrices. */
export interface Projected {
  readonly result: Pick<HooiResult, "u3" | "projected">;
  /** The stack, with the norm that each matrix had in the tensor. */
  readonly matrices: readonly { readonly name: MatrixName; readonly norm: number }[];
  /** r1: rows of the projected tensor. */
  readonly rank: number;
}

/** Errors below are left to others: there the difference of squares has lost digits. */
const LEAST_ERROR = 0.05;

/**
 * ‖W − Ŵ‖ / ‖W‖ of each matrix whose error is 0.05 or more, exact to about 1e-6. With C_s = U1ᵀ W_s U2 for all heads and
 * P = U3 U3ᵀ, the decomposition has Ĉ_s = Σ_t P_st C_t in their place, so that ‖W_s − Ŵ_s‖² = ‖W_s‖² − 2⟨C_s, Ĉ_s⟩ + ‖Ĉ_s‖² follows from the
 * dot products of the C_s alone.
 */
export function projectedErrors(given: Projected): Partial<Record<MatrixName, number>> {
  const residuals = squaredResiduals(given);
  const errors: Partial<Record<MatrixName, number>> = {};
  for (const [slot, { name, norm }] of given.matrices.entries()) {
    const error = Math.sqrt(residuals[slot]!) / norm;
    if (error >= LEAST_ERROR) errors[name] = error;
  }
  return errors;
}

function squaredResiduals({ result: { u3, projected }, rank, matrices }: Projected): number[] {
  const stack = matrices.length;
  const dots = projectedDots(projected, rank, stack);
  const mixed = plainProduct(projector(u3, stack), dots, { m: stack, k: stack, n: stack }); // ⟨Ĉ_s, C_t⟩
  const kept = plainProduct(mixed, projector(u3, stack), { m: stack, k: stack, n: stack }); // ⟨Ĉ_s, Ĉ_t⟩
  return matrices.map(({ norm }, slot) => {
    const diagonal = slot * (stack + 1);
    return Math.max(0, norm ** 2 - 2 * mixed[diagonal]! + kept[diagonal]!);
  });
}

/** ⟨C_s, C_t⟩ of all pairs. */
function projectedDots(projected: Float64Array, rank: number, stack: number): Float64Array {
  const dots = new Float64Array(stack ** 2);
  const length = projected.length / rank / stack;
  for (let row = 0; row < projected.length; row += stack * length) {
    for (let s = 0; s < stack; s++) {
      for (let t = 0; t <= s; t++) {
        let sum = 0;
        for (let i = 0; i < length; i++) sum += projected[row + s * length + i]! * projected[row + t * length + i]!;
        dots[s * stack + t]! += sum;
        if (t < s) dots[t * stack + s]! += sum;
      }
    }
  }
  return dots;
}

/** U3 U3ᵀ. */
function projector(u3: Float64Array, stack: number): Float64Array {
  return plainProduct(u3, u3, { m: stack, k: u3.length / stack, n: stack, transposeB: true });
}
