/**
 * How fast operations are at what most of a decomposition's time goes into: a matrix times a narrow block, and its transpose times that,
 * with the result on the host, since orthonormalisation runs there.
 *
 * @module
 */
import type { TuckerOps } from "./ops.ts";

/** Most numbers of a trial's matrix, 16 MiB: enough to fill a large GPU, and a CPU is through in some ten milliseconds. */
const MOST_NUMBERS = 2 ** 22;

/** Columns of the block. */
const BLOCK = 64;

/** Timed steps; the fastest counts, since whatever disturbs one makes it slower. */
const STEPS = 3;

/**
 * Seconds of a step, the fastest of several after one that compiles and warms up.
 *
 * @param rows of the matrix
 * @param columns of the matrix; fewer are taken where it would be large
 * @throws TuckerdError `failed` where operations on a GPU fail
 */
export async function trialSeconds(ops: TuckerOps, rows: number, columns: number): Promise<number> {
  const width = Math.max(1, Math.min(columns, Math.floor(MOST_NUMBERS / rows)));
  using matrix = ops.adopt(pattern(rows * width), [rows, width]);
  const block = pattern(rows * BLOCK);
  let fastest = Infinity;
  for (let step = 0; step <= STEPS; step++) {
    const started = performance.now();
    using given = ops.tensor(block, [rows, BLOCK]);
    using across = ops.matmul(matrix, given, { transposeA: true });
    using back = ops.matmul(matrix, across);
    await ops.read(back);
    if (step > 0) fastest = Math.min(fastest, performance.now() - started);
  }
  return fastest / 1000;
}

/** Numbers between −1/2 and 1/2, quickly made: zeros might be faster to read than weights. */
function pattern(length: number): Float32Array {
  const numbers = new Float32Array(length);
  const first = Math.min(length, 997);
  for (let i = 0; i < first; i++) numbers[i] = (i * 619 % 997) / 997 - 0.5;
  for (let filled = first; filled < length; filled *= 2) numbers.copyWithin(filled, 0, filled);
  return numbers;
}
