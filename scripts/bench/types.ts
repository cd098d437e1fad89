/**
 * What every benchmark reports: a figure against a named baseline, both measured in the same run, since absolute times are noise
 * on shared machines.
 *
 * @module
 */

/** One comparison. */
export interface BenchResult {
  /** What was measured, with its sizes. */
  readonly name: string;
  /** What it is measured against. */
  readonly baseline: string;
  /** Median seconds of what was measured, and of its baseline. */
  readonly seconds: number;
  readonly baselineSeconds: number;
  /** How many times faster than the baseline: baselineSeconds / seconds. */
  readonly ratio: number;
  /** What else has to be said: errors reached, the device that ran, the aim. */
  readonly note: string;
}

/** Median of measured values. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("the median of no values");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A result from the times of both, taken in turn. */
export function comparison(
  names: Pick<BenchResult, "name" | "baseline" | "note">,
  times: { readonly seconds: readonly number[]; readonly baselineSeconds: readonly number[] },
): BenchResult {
  const seconds = median(times.seconds);
  const baselineSeconds = median(times.baselineSeconds);
  return { ...names, seconds, baselineSeconds, ratio: baselineSeconds / seconds };
}
