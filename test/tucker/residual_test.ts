/** Errors of reconstructions so good that float32 products would drown them. */
import { assert } from "@std/assert/mod.js";
import { MATRICES, type MatrixName } from "../../src/attention/types.ts";
import { reconstructionErrors } from "../../src/tucker/mod.ts";
import type { LowRankFactors } from "../../src/tucker/types.ts";
import { randomArray } from "./random.ts";

const [HIDDEN, HEADS, HEAD_SIZE, RANK] = [520, 8, 65, 8]; // large enough to be looked at in float32 first

Deno.test("the error of a large matrix near rounding is float64's", async () => {
  const matrices = Object.fromEntries(MATRICES.map((name, at) => {
    const [left, right] = [randomArray(HIDDEN * RANK, 90 + at), randomArray(RANK * HIDDEN, 95 + at)];
    return [name, { rank: RANK, left: new Float32Array(left), right: new Float32Array(right) }];
  })) as Record<MatrixName, LowRankFactors>;
  for (const off of [3e-8, 1e-6, 1e-2]) {
    const noise = randomArray(HIDDEN * HIDDEN, 99);
    let [residual, norm] = [0, 0];
    const weights = Object.fromEntries(MATRICES.map((name) => {
      const { left, right } = matrices[name];
      const matrix = new Float32Array(HIDDEN * HIDDEN);
      for (let i = 0; i < HIDDEN; i++) {
        for (let j = 0; j < HIDDEN; j++) {
          let product = 0;
          for (let k = 0; k < RANK; k++) product += left[i * RANK + k]! * right[k * HIDDEN + j]!;
          matrix[i * HIDDEN + j] = product + off * noise[i * HIDDEN + j]!;
          residual += (matrix[i * HIDDEN + j]! - product) ** 2;
          norm += matrix[i * HIDDEN + j]! ** 2;
        }
      }
      return [name, matrix];
    })) as Record<MatrixName, Float32Array>;
    const norms = Object.fromEntries(MATRICES.map((name) => [name, Math.hypot(...rowNorms(weights[name]))])) as Record<
      MatrixName,
      number
    >;
    const { relativeError } = await reconstructionErrors(
      { kind: "low-rank", matrices },
      { hiddenSize: HIDDEN, heads: HEADS, headSize: HEAD_SIZE, ...weights },
      { norms, layout: "heads" },
    );
    const expected = Math.sqrt(residual / norm);
    assert(Math.abs(relativeError / expected - 1) <= 1e-3, `${off}: ${relativeError}, expected ${expected}`);
  }
});

function rowNorms(matrix: Float32Array): number[] {
  return Array.from({ length: HIDDEN }, (_, i) => {
    const row = matrix.subarray(i * HIDDEN, (i + 1) * HIDDEN);
    return Math.sqrt(row.reduce((sum, value) => sum + value ** 2, 0));
  });
}
