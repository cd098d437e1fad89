/**
 * Comparing arrays of numbers, so that NaN and missing numbers fail.
 *
 * @module
 */

/** Largest |actual − expected|; NaN or another length gives Infinity. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}

/** Largest |value|. */
export function largestValue(values: ArrayLike<number>): number {
  return Array.from(values).reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
}

/** Fails unless every number is within `atol + rtol · |expected|`. */
export function assertNear(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: { readonly atol: number; readonly rtol: number; readonly what: string },
): void {
  const { atol, rtol, what } = tolerance;
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} numbers, expected ${expected.length}`);
  }
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= atol + rtol * Math.abs(expected[i]!))) {
      throw new Error(`${what}: number ${i} is ${actual[i]}, expected ${expected[i]}`);
    }
  }
}
