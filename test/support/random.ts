/**
 * Seeded random numbers for tests, whose seed is printed so that a failure can be repeated.
 *
 * @module
 */
import { testSeed } from "./seed.ts";
import { print } from "../../src/log.ts";

/** A generator of uniform numbers in [0, 1) (mulberry32). */
export type Random = () => number;

/** A generator with the seed of `TEST_SEED`, or a new one; the seed is printed. */
export function seededRandom(test: string): Random {
  const seed = testSeed();
  print(`${test}: TEST_SEED=${seed}`);
  let state = seed >>> 0;
  return () => {
    state = state + 0x6D2B79F5 >>> 0;
    let mixed = Math.imul(state ^ state >>> 15, state | 1);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/** An integer from `least` to `most`, both included. */
export function integer(random: Random, least: number, most: number): number {
  return least + Math.floor(random() * (most - least + 1));
}
