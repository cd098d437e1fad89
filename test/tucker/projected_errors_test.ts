/** Errors from the sweeps' own projections, against residuals entry by entry. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { MATRICES } from "../../src/attention/types.ts";
import { createCpuOps, decomposeLayer, reconstructionErrors } from "../../src/tucker/mod.ts";
import { projectedErrors } from "../../src/tucker/projected_errors.ts";
import { matrixNorms } from "../../src/tucker/tensorise.ts";
import { options, randomWeights, WHERE } from "./layers.ts";

Deno.test("the reported errors of a large layer are those of its residual", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights({ hiddenSize: 136, heads: 32, headSize: 32 }, 81);
  for (let i = 0; i < weights.output.length; i++) weights.output[i]! *= 3;
  const norms = matrixNorms(weights, WHERE);
  for (
    const given of [
      { ranks: [40, 12, 2] },
      { ranks: [100, 30, 3], balance: true },
      { ranks: [40, 12, 2], layout: "heads", balance: true },
    ] as const
  ) {
    const result = await decomposeLayer(weights, options(given), ops);
    const measured = await reconstructionErrors(result.factors, weights, { norms, layout: "heads" });
    assert(Math.abs(result.relativeError - measured.relativeError) <= 1e-6, `${given.ranks}`);
    for (const name of ["q", "k", "v", "o"] as const) {
      const off = Math.abs(result.matrixErrors[name] - measured.matrixErrors[name]);
      assert(off <= 1e-6, `${given.ranks}, ${name}: ${result.matrixErrors[name]} and ${measured.matrixErrors[name]}`);
    }
  }
});

Deno.test("errors by hand: a kept entry, one that is lost, and one too small to tell", () => {
  // one entry a matrix and head: C = 0.9, 0.5, 0.3, 1; u3 keeps the first and last matrix as they are
  const result = {
    projected: Float64Array.of(0.9, 0.5, 0.3, 1),
    u3: Float64Array.of(1, 0, 0, 0, 0, 0, 0, 1),
  };
  const norms = [1, 0.5, 0.6, 1];
  const matrices = MATRICES.map((name, slot) => ({ name, norm: norms[slot]! }));
  const errors = projectedErrors({ result, rank: 1, matrices });
  assert(Math.abs(errors.query! - Math.sqrt(1 - 0.81)) <= 1e-12);
  assertEquals([errors.key, errors.value], [1, 1]);
  assertEquals(errors.output, undefined, "an error of 0 must be measured otherwise");
});
