/**
 * Reproducible random arrays, the same in TypeScript and Python (scripts/golden/prng.py).
 *
 * @module
 */

/**
 * Uniform numbers in [−1, 1) from mulberry32 (a public-domain 32-bit generator: one Weyl step, two xorshift-multiply
 * rounds), each a multiple of 2⁻²³ and so exact in float32.
 */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 8) / 2 ** 23 - 1;
  };
}

/** `length` uniform numbers in [−1, 1). */
export function randomArray(length: number, seed: number): Float32Array {
  const next = uniform(seed);
  return Float32Array.from({ length }, next);
}
