/**
 * Numbers without a pattern, the same at every call: starting points of iterations.
 *
 * @module
 */

/** Uniform in [−½, ½), by xorshift (Marsaglia 2003). */
export function noise(count: number): Float32Array {
  const numbers = new Float32Array(count);
  let state = 20250115;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    numbers[i] = state / 4294967296;
  }
  return numbers;
}
