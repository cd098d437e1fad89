/**
 * When sweeps have converged. A sweep can only keep more energy, and the gains of sweeps fall, in the end, by a constant ratio ρ: after a gain
 * g, g·ρ/(1 − ρ) is left. A decomposition is converged when that, as a change of the relative error ‖W − Ŵ‖/‖W‖, is below the tolerance.
 *
 * The gain alone says little: random tensors still have ten times as much to gain, trained weights a tenth. Where gains are just about to
 * fall more slowly, the last ratio is too hopeful, so the larger of two counts; and no ratio is taken to be below 0.8, nor above 0.99.
 *
 * @module
 */

/** What is asked and what can be had. */
export interface ConvergenceOptions {
  /** Change of the relative error that may be left. */
  readonly tolerance: number;
  /** Relative rounding error of the energies: smaller gains mean nothing. */
  readonly roundoff: number;
}

/** Ratios of gains that are assumed at least and at most. */
const LEAST_RATIO = 0.8;
const MOST_RATIO = 0.99;
/** A gain of this part of the tolerance is taken for the last one where there are no ratios yet. */
const SMALL_PART = 0.1;

/** Watches the energies of a tensor of norm 1. */
export class Convergence {
  #energy = Number.NaN;
  /** The last gains, the latest first. */
  #gains: readonly number[] = [];

  constructor(readonly options: ConvergenceOptions) {}

  /** The gain of the last sweep; NaN after the first one. */
  get gain(): number {
    return this.#gains[0] ?? Number.NaN;
  }

  /** Takes the energy kept after a sweep; says whether the decomposition is converged. */
  add(energy: number): boolean {
    if (!Number.isNaN(this.#energy)) this.#gains = [energy - this.#energy, ...this.#gains.slice(0, 2)];
    this.#energy = energy;
    const { tolerance, roundoff } = this.options;
    // the relative error is √(1 − energy)
    const allowed = 2 * Math.sqrt(Math.max(0, 1 - energy)) * tolerance;
    if (Math.abs(this.gain) <= roundoff) return true;
    const left = this.#left();
    return left === undefined ? this.#isSmall(allowed) : left <= allowed;
  }

  /** The energy still to gain; undefined where it can't be foreseen. */
  #left(): number | undefined {
    const [last, before, first] = this.#gains;
    if (last === undefined || before === undefined || first === undefined) return undefined;
    if (!(last > 0 && before > 0 && first > 0)) return undefined;
    const ratio = Math.min(MOST_RATIO, Math.max(last / before, before / first, LEAST_RATIO));
    return last * ratio / (1 - ratio);
  }

  /** Is the gain so small that no ratio is needed? Where the one before was large, it may only be that momentum overshot. */
  #isSmall(allowed: number): boolean {
    const [last, before] = this.#gains;
    return Math.abs(last!) <= SMALL_PART * allowed && (before === undefined || Math.abs(before) <= allowed);
  }
}
