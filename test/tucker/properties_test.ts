import { testSeed } from "../support/seed.ts";
import fc from "fast-check";
import { assert } from "@std/assert/mod.js";
import type { AttentionWeights } from "../../src/attention/types.ts";
import { MATRICES } from "../../src/attention/types.ts";
import { createCpuOps, decomposeLayer, ErrorTable, hosvd, reconstruct, truncateHosvd } from "../../src/tucker/mod.ts";
import { createFloat64Ops } from "../../src/tucker/cpu_ops.ts";
import { tensorise } from "../../src/tucker/tensorise.ts";
import type { Ranks, TuckerFactors } from "../../src/tucker/types.ts";
import { options, randomWeights, relativeDistance, scaled, WHERE } from "./layers.ts";
import { randomArray } from "./random.ts";

/** fast-check prints seed and counterexample of a failure. */
const RUNS = { numRuns: 25, seed: testSeed() };

interface Layer {
  readonly weights: AttentionWeights;
  readonly ranks: Ranks;
  readonly text: string;
}

const layers = fc.record({
  hiddenSize: fc.integer({ min: 1, max: 14 }),
  heads: fc.integer({ min: 1, max: 4 }),
  headSize: fc.integer({ min: 1, max: 6 }),
  seed: fc.integer({ min: 0, max: 1 << 20 }),
  shares: fc.tuple(fc.double({ min: 0, max: 1 }), fc.double({ min: 0, max: 1 }), fc.integer({ min: 1, max: 4 })),
}).map(({ hiddenSize, heads, headSize, seed, shares: [a, b, r3] }): Layer => {
  const rank = (share: number, length: number): number => Math.max(1, Math.round(share * length));
  if (!(a >= 0 && b >= 0)) [a, b] = [0.5, 0.5]; // NaN
  const ranks = [rank(a, hiddenSize), rank(b, headSize), r3] as const;
  const weights = randomWeights({ hiddenSize, heads, headSize }, seed);
  return { weights, ranks, text: `${hiddenSize}×${headSize}×4×${heads} at [${ranks}], seed ${seed}` };
});

/** Runs a property on random layers. */
async function check(property: (layer: Layer) => Promise<void>): Promise<void> {
  await fc.assert(fc.asyncProperty(layers, property), RUNS);
}

/** Largest entry of UᵀU − I. */
function orthonormalityError(matrix: Float32Array, columns: number): number {
  const rows = matrix.length / columns;
  let largest = 0;
  for (let a = 0; a < columns; a++) {
    for (let b = 0; b < columns; b++) {
      let dot = a === b ? -1 : 0;
      for (let i = 0; i < rows; i++) dot += matrix[i * columns + a]! * matrix[i * columns + b]!;
      if (!(Math.abs(dot) <= largest)) largest = Math.abs(dot);
    }
  }
  return largest;
}

function tuckerFactors(result: { factors: { kind: string } }): TuckerFactors {
  assert(result.factors.kind === "tucker4");
  return (result.factors as unknown as { factors: TuckerFactors }).factors;
}

Deno.test("factors are orthonormal at any ranks, those beyond the tensor's rank included", async () => {
  using ops = await createCpuOps();
  await check(async ({ weights, ranks, text }) => {
    const { u1, u2, u3 } = tuckerFactors(await decomposeLayer(weights, options({ ranks }), ops));
    for (const [matrix, rank] of [[u1, ranks[0]], [u2, ranks[1]], [u3, ranks[2]]] as const) {
      const error = orthonormalityError(matrix, rank);
      assert(error <= 1e-6, `${text}: off by ${error}`);
    }
  });
});

Deno.test("at full ranks the reconstruction is exact", async () => {
  using ops = await createCpuOps();
  await check(async ({ weights, text }) => {
    const ranks = [weights.hiddenSize, weights.headSize, 4] as const;
    for (const balance of [false, true]) {
      const result = await decomposeLayer(weights, options({ ranks, balance }), ops);
      assert(result.relativeError <= 1e-6, `${text}: ${result.relativeError}`);
    }
  });
});

Deno.test("the error falls with every rank", async () => {
  using ops = await createCpuOps();

  await check(async ({ weights, ranks, text }) => {
    const { errors } = await hosvd(weights, { layout: "heads", balance: false, where: WHERE }, ops);
    for (const [mode, length] of [weights.hiddenSize, weights.headSize, 4].entries()) {
      if (ranks[mode]! === length) continue;
      const more = ranks.with(mode, ranks[mode]! + 1) as unknown as Ranks;
      const [before, after] = [errors.relativeError(ranks), errors.relativeError(more)];
      assert(after <= before + 1e-9, `${text}: the table's ${before} → ${after} at [${more}]`);
      // HOOI finds local optima, so its own error may rise a little between ranks; it stays under the table, which falls.
      const result = await decomposeLayer(weights, options({ ranks: more }), ops);
      assert(
        result.relativeError <= after + 1e-6,
        `${text}: ${result.relativeError} above the table's ${after} at [${more}]`,
      );
    }
  });
});

Deno.test("the relative error doesn't depend on the scale of the weights", async () => {
  using ops = await createCpuOps();
  await check(async ({ weights, ranks, text }) => {
    const { relativeError } = await decomposeLayer(weights, options({ ranks }), ops);
    const result = await decomposeLayer(scaled(weights, 2 ** -40), options({ ranks }), ops);
    assert(
      Math.abs(result.relativeError - relativeError) <= 1e-6,
      `${text}: ${relativeError}, ${result.relativeError}`,
    );
  });
});

Deno.test("sweeps never make the HOSVD's error worse", async () => {
  using ops = await createCpuOps();
  await check(async ({ weights, ranks, text }) => {
    const [none, all] = [
      await decomposeLayer(weights, options({ ranks, sweeps: 0 }), ops),
      await decomposeLayer(weights, options({ ranks }), ops),
    ];
    assert(all.relativeError <= none.relativeError + 1e-7, `${text}: ${none.relativeError} → ${all.relativeError}`);
  });
});

Deno.test("the sliced HOSVD's errors and the error table are those of its reconstruction, balanced or not", async () => {
  using ops = await createCpuOps();
  for (const balance of [false, true]) {
    await check(async ({ weights, ranks, text }) => {
      const full = await hosvd(weights, { layout: "heads", balance, where: WHERE }, ops);
      const { factors, relativeError, matrixErrors } = truncateHosvd(full.factors, ranks, WHERE);
      const dense = await reconstruct(factors, weights);
      const measured = relativeDistance(weights, dense);
      assert(Math.abs(relativeError - measured) <= 2e-6, `${text}: ${relativeError}, measured ${measured}`);
      const { q, k, v, o } = matrixErrors;
      for (const [s, name] of MATRICES.entries()) {
        const own = relativeDistance(weights, dense, [name]);
        assert(Math.abs([q, k, v, o][s]! - own) <= 2e-6, `${text}: ${name} ${[q, k, v, o][s]}, measured ${own}`);
      }
      // The table is about the tensor that was decomposed: with balance, matrices scaled to equal norm.
      const tensor = balance ? Math.hypot(q, k, v, o) / 2 : measured;
      const expected = full.errors.relativeError(ranks);
      assert(Math.abs(tensor - expected) <= 2e-6, `${text}: ${tensor}, table ${expected}`);
      for (const mode of [0, 1, 2]) {
        if (ranks[mode]! === full.errors.sizes[mode]!) continue;
        const more = ranks.with(mode, ranks[mode]! + 1) as unknown as Ranks;
        assert(full.errors.energy(more) >= full.errors.energy(ranks) - 1e-12, text);
      }
    });
  }
});

Deno.test("HOOI is at least as good as the HOSVD truncated at the same ranks", async () => {
  using ops = await createCpuOps();
  await check(async ({ weights, ranks, text }) => {
    const { errors } = await hosvd(weights, { layout: "heads", balance: false, where: WHERE }, ops);
    const { relativeError } = await decomposeLayer(weights, options({ ranks }), ops);
    assert(
      relativeError <= errors.relativeError(ranks) + 1e-6,
      `${text}: ${relativeError}, ${errors.relativeError(ranks)}`,
    );
  });
});

Deno.test("tensorise holds every weight at its place, in both layouts", async () => {
  await check(({ weights, text }) => {
    const { hiddenSize: d, heads, headSize: h } = weights;
    const width = heads * h;
    for (const layout of d === width ? ["heads", "reference"] as const : ["heads"] as const) {
      const tensor = tensorise(weights, { matrices: MATRICES, factors: [1, 1, 1, 1], layout }, Float32Array);
      for (const [s, name] of MATRICES.entries()) {
        for (let a = 0; a < d; a++) {
          for (let c = 0; c < width; c++) {
            const plain = (name === "output") === (layout === "reference");
            const expected = plain ? weights[name][a * width + c] : weights[name][c * d + a];
            assert(tensor[(a * 4 + s) * width + c] === expected, `${text} ${layout} ${name} ${a} ${c}`);
          }
        }
      }
    }
    return Promise.resolve();
  });
});

Deno.test("mode products commute, and a Gram matrix sees only its own mode's basis change", async () => {
  using ops = createFloat64Ops();
  const sizes = fc.tuple(...[1, 2, 3].map(() => fc.integer({ min: 1, max: 7 })), fc.integer({ min: 0, max: 1 << 20 }));
  await fc.assert(
    fc.asyncProperty(sizes, async ([a, b, c, seed]) => {
      const shape = [a!, b!, c!];
      using tensor = ops.tensor(Float64Array.from(randomArray(a! * b! * c!, seed!)), shape);
      using first = ops.tensor(Float64Array.from(randomArray(a! * 2, seed! + 1)), [a!, 2]);
      using last = ops.tensor(Float64Array.from(randomArray(c! * 3, seed! + 2)), [c!, 3]);
      const one = await ops.read(ops.modeProduct(ops.modeProduct(tensor, 0, first), 2, last));
      const other = await ops.read(ops.modeProduct(ops.modeProduct(tensor, 2, last), 0, first));
      for (const [i, value] of one.entries()) assert(Math.abs(value - other[i]!) <= 1e-12, `[${shape}] seed ${seed}`);
      const traces = await Promise.all([0, 1, 2].map(async (mode) => {
        const gram = await ops.gram(tensor, mode);
        return gram.reduce((sum, value, i) => i % (shape[mode]! + 1) === 0 ? sum + value : sum, 0);
      }));
      for (const trace of traces) assert(Math.abs(trace - traces[0]!) <= 1e-12, `[${shape}] seed ${seed}: ${traces}`);
    }),
    RUNS,
  );
});

Deno.test("an error table sums the energies of every corner", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1 << 20 }), (seed) => {
      const energies = Float64Array.from(randomArray(5 * 3 * 2, seed), (value) => value ** 2);
      const table = ErrorTable.fromEnergies([5, 3, 2], energies);
      const total = energies.reduce((sum, energy) => sum + energy, 0);
      for (let r1 = 1; r1 <= 5; r1++) {
        for (let r2 = 1; r2 <= 3; r2++) {
          for (let r3 = 1; r3 <= 2; r3++) {
            let kept = 0;
            for (let a = 0; a < r1; a++) {
              for (let b = 0; b < r2; b++) for (let c = 0; c < r3; c++) kept += energies[(a * 3 + b) * 2 + c]!;
            }
            assert(Math.abs(table.energy([r1, r2, r3]) - kept / total) <= 1e-12, `seed ${seed} at ${r1},${r2},${r3}`);
          }
        }
      }
    }),
    RUNS,
  );
});
