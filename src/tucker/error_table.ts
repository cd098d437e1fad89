/**
 * The error of every choice of ranks, by one table per layer.
 *
 * In the HOSVD's bases the weights' energy (squared norm) is the sum of the core's squared entries, and truncating at
 * (r1, r2, r3) keeps the entries of the leading r1×r2×r3 corner of all heads. So a table of prefix sums answers every what-if. HOOI
 * at the same ranks starts close and improves: in no test did it end above these errors, so they serve as upper bounds.
 *
 * @module
 */
import type { Ranks } from "./types.ts";

/** Dimensions of the three truncated modes: d, h and the stack's. */
export type ModeSizes = readonly [hidden: number, headSize: number, stack: number];

/** Relative errors by ranks. */
export class ErrorTable {
  /**
   * @param sizes of the modes
   * @param kept share of the energy that ranks (a+1, b+1, c+1) keep, at [(a·h + b)·stack + c]
   */
  constructor(readonly sizes: ModeSizes, readonly kept: Float64Array) {
    const [hidden, headSize, stack] = sizes;
    if (kept.length !== hidden * headSize * stack) {
      throw new RangeError(`error table: ${kept.length} numbers don't fill ${hidden}×${headSize}×${stack}`);
    }
  }

  /**
   * The table of a core.
   *
   * @param energies squared norm over all heads of the core's entries, d × h × stack
   */
  static fromEnergies(sizes: ModeSizes, energies: Float64Array): ErrorTable {
    const [hidden, headSize, stack] = sizes;
    const sums = energies.slice();
    for (let i = 0; i < sums.length; i++) if (i % stack > 0) sums[i]! += sums[i - 1]!;
    const plane = headSize * stack;
    for (let i = 0; i < sums.length; i++) if (i % plane >= stack) sums[i]! += sums[i - stack]!;
    for (let i = plane; i < hidden * plane; i++) sums[i]! += sums[i - plane]!;
    const total = sums[sums.length - 1]!;
    return new ErrorTable(sizes, total === 0 ? sums.fill(1) : sums.map((sum) => sum / total));
  }

  /** Share of the energy kept, 1 − relative error². */
  energy([r1, r2, r3]: Ranks): number {
    const [hidden, headSize, stack] = this.sizes;
    if (!(r1 >= 1 && r1 <= hidden && r2 >= 1 && r2 <= headSize && r3 >= 1 && r3 <= stack)) {
      throw new RangeError(`error table: ranks [${r1}, ${r2}, ${r3}] aren't within [${this.sizes}]`);
    }
    return this.kept[((r1 - 1) * headSize + r2 - 1) * stack + r3 - 1]!;
  }

  /** ‖W − Ŵ‖F / ‖W‖F of the HOSVD truncated at these ranks. */
  relativeError(ranks: Ranks): number {
    return Math.sqrt(Math.max(0, 1 - this.energy(ranks)));
  }
}
