import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert/mod.js";
import { MATRICES } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import { createCpuOps, decomposeLayer, reconstruct } from "../../src/tucker/mod.ts";
import { options, randomWeights, relativeDistance, scaled, weightsOf } from "./layers.ts";

const SIZES = { hiddenSize: 20, heads: 3, headSize: 8 };

async function rejected(promise: Promise<unknown>, ...parts: string[]): Promise<void> {
  const error = await assertRejects(() => promise, TuckerdError);
  assertEquals(error.kind, "invalid");
  for (const part of parts) assert(error.message.includes(part), `"${part}" isn't in "${error.message}"`);
}

Deno.test("weights of zeros give zero factors and error 0", async () => {
  using ops = await createCpuOps();
  const zeros = scaled(randomWeights(SIZES, 1), 0);
  for (const balance of [false, true]) {
    for (const mode of ["4d-tucker", "3d-tucker"] as const) {
      const result = await decomposeLayer(zeros, options({ mode, balance, ranks: [4, 3, 2] }), ops);
      assertEquals([result.relativeError, result.matrixErrors], [0, { q: 0, k: 0, v: 0, o: 0 }]);
      const back = await reconstruct(result.factors, zeros);
      assert(MATRICES.every((name) => back[name].every((value) => value === 0)));
    }
  }
  const low = await decomposeLayer(zeros, options({ mode: "laser", rank: 2 }), ops);
  assertEquals(low.relativeError, 0);
});

Deno.test("one matrix of zeros stays zero with balance", async () => {
  using ops = await createCpuOps();
  const weights = { ...randomWeights(SIZES, 2), value: new Float32Array(20 * 24) };
  const result = await decomposeLayer(weights, options({ balance: true, ranks: [10, 4, 2] }), ops);
  const back = await reconstruct(result.factors, weights);
  assert(back.value.every((entry) => entry === 0));
  assertEquals(result.matrixErrors.v, 0);
  assert(result.relativeError > 0 && result.relativeError < 1);
});

Deno.test("a tensor of rank one is exact at rank 1,1,1", async () => {
  using ops = await createCpuOps();
  const shape = [20, 8, 4, 3];
  const data = new Float32Array(20 * 8 * 4 * 3);
  let index = 0;
  for (let a = 0; a < 20; a++) {
    for (let b = 0; b < 8; b++) {
      for (let s = 0; s < 4; s++) for (let i = 0; i < 3; i++) data[index++] = (a - 9) * (b + 1) * (s - 1.5) * (i + 1);
    }
  }
  const result = await decomposeLayer(weightsOf({ shape, data }), options({ ranks: [1, 1, 1] }), ops);
  assert(result.relativeError <= 3e-7, `${result.relativeError}`);
});

Deno.test("repeated singular values: orthogonal slices lose exactly the energy of what is cut", async () => {
  using ops = await createCpuOps();
  const [d, h, heads] = [16, 4, 4];
  const identity = new Float32Array(d * d).map((_, i) => i % (d + 1) === 0 ? 1 : 0);
  const weights = {
    hiddenSize: d,
    heads,
    headSize: h,
    query: identity,
    key: identity,
    value: identity,
    output: identity,
  };
  const result = await decomposeLayer(weights, options({ ranks: [12, 4, 1] }), ops);
  assertAlmostEquals(result.relativeError, Math.sqrt(1 - 12 / 16), 1e-6);
  assert(result.converged);
});

Deno.test("entries of 1e-30 and 1e30 decompose like entries of 1", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights(SIZES, 3);
  for (
    const given of [{ ranks: [8, 4, 2] }, { mode: "3d-tucker", ranks: [8, 4, 4] }, { mode: "laser", rank: 6 }] as const
  ) {
    const reference = await decomposeLayer(weights, options(given), ops);
    for (const factor of [1e-30, 1e30]) {
      const result = await decomposeLayer(scaled(weights, factor), options(given), ops);
      assertAlmostEquals(result.relativeError, reference.relativeError, 1e-6, `${factor}`);
      assertAlmostEquals(result.matrixErrors.o, reference.matrixErrors.o, 1e-6, `${factor}`);
    }
  }
});

Deno.test("entries of 1e-30 beside entries of 1e30 give finite factors", async () => {
  using ops = await createCpuOps();
  const weights = { ...scaled(randomWeights(SIZES, 4), 1e-30), output: scaled(randomWeights(SIZES, 5), 1e30).output };
  const plain = await decomposeLayer(weights, options({ ranks: [20, 8, 4] }), ops);
  assert(plain.relativeError <= 1e-6 && plain.matrixErrors.o <= 1e-6, JSON.stringify(plain.matrixErrors));
  const balanced = await decomposeLayer(weights, options({ ranks: [20, 8, 4], balance: true }), ops);
  for (const error of Object.values(balanced.matrixErrors)) {
    assert(error <= 1e-6, JSON.stringify(balanced.matrixErrors));
  }
});

Deno.test("NaN and infinite entries are refused, naming layer and matrix", async () => {
  using ops = await createCpuOps();
  for (const name of MATRICES) {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const weights = randomWeights(SIZES, 6);
      weights[name][17] = bad;
      for (const given of [{ ranks: [8, 4, 2] }, { mode: "laser", rank: 3 }] as const) {
        await rejected(decomposeLayer(weights, options(given), ops), "layer 3", "test.layer", name, "17", `${bad}`);
      }
    }
  }
});

Deno.test("ranks, rates and sizes out of range are refused with the rule", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights(SIZES, 7);
  await rejected(decomposeLayer(weights, options({ ranks: [21, 4, 2] }), ops), "r1", "20", "21", "layer 3");
  await rejected(decomposeLayer(weights, options({ ranks: [8, 9, 2] }), ops), "r2", "8", "9");
  await rejected(decomposeLayer(weights, options({ ranks: [8, 4, 5] }), ops), "r3", "4", "5");
  await rejected(decomposeLayer(weights, options({ ranks: [8, 0, 2] }), ops), "r2", "0");
  await rejected(decomposeLayer(weights, options({ ranks: [8, 2.5, 2] }), ops), "r2", "2.5");
  await rejected(decomposeLayer(weights, options({}), ops), "ranks");
  await rejected(decomposeLayer(weights, options({ mode: "laser" }), ops), "rank or a rate");
  await rejected(decomposeLayer(weights, options({ mode: "laser", rank: 21 }), ops), "query", "20", "21");
  await rejected(decomposeLayer(weights, options({ mode: "laser", rate: 10 }), ops), "rate", "10");
  await rejected(decomposeLayer(weights, options({ ranks: [4, 4, 2], layout: "reference" }), ops), "reference", "24");
  const short = { ...weights, key: new Float32Array(7) };
  await rejected(decomposeLayer(short, options({ ranks: [4, 4, 2] }), ops), "key", "7");
});

Deno.test("an aborted decomposition is cancelled", async () => {
  using ops = await createCpuOps();
  const signal = AbortSignal.abort();
  const run = decomposeLayer(randomWeights(SIZES, 8), options({ ranks: [8, 4, 2], signal }), ops);
  assertEquals((await assertRejects(() => run, TuckerdError)).kind, "cancelled");
});

Deno.test("the reported error is that of the reconstruction, for the layer and each matrix", async () => {
  using ops = await createCpuOps();
  const square = { hiddenSize: 24, heads: 3, headSize: 8 };
  for (
    const given of [
      { ranks: [8, 4, 2] },
      { ranks: [8, 4, 2], balance: true },
      { ranks: [8, 4, 2], layout: "reference" },
      { mode: "3d-tucker", ranks: [8, 4, 4] },
      { mode: "3d-tucker", ranks: [8, 4, 4], layout: "reference", matrices: ["key", "output"] },
      { mode: "laser", rate: 7.5, matrices: ["value"] },
      { mode: "none" },
    ] as const
  ) {
    const weights = randomWeights(square, 9);
    weights.output.forEach((value, index) => weights.output[index] = 5 * value); // so that norms differ
    const result = await decomposeLayer(weights, options(given), ops);
    const back = await reconstruct(result.factors, weights, "layout" in given ? given.layout : "heads");
    assertAlmostEquals(result.relativeError, relativeDistance(weights, back), 1e-6, JSON.stringify(given));
    for (const [short, name] of [["q", "query"], ["k", "key"], ["v", "value"], ["o", "output"]] as const) {
      const only = { ...weights, [name]: back[name] };
      const norm = relativeDistance({ ...weights, [name]: new Float32Array(back[name].length) }, weights);
      const expected = relativeDistance(weights, only) * totalNorm(weights) / matrixNorm(weights[name]);
      assert(Number.isFinite(norm));
      assertAlmostEquals(result.matrixErrors[short], expected, 1e-6, `${name} ${JSON.stringify(given)}`);
      const untouched = "matrices" in given && !(given.matrices as readonly string[]).includes(name);
      if (untouched) assert(back[name] === weights[name], "an untouched matrix must come back as it is");
    }
  }
});

const matrixNorm = (matrix: Float32Array): number => Math.hypot(...matrix);
const totalNorm = (weights: ReturnType<typeof randomWeights>): number =>
  Math.hypot(...MATRICES.map((name) => matrixNorm(weights[name])));

Deno.test("layout reference is the authors' view of PyTorch's [out, in] weights", async () => {
  // W[a, j, s, i] of P.view(d, H, h): P is the [out, in] matrix for Q, K and V, its transpose for O.
  using ops = await createCpuOps();
  const [d, heads, h] = [24, 3, 8];
  const weights = randomWeights({ hiddenSize: d, heads, headSize: h }, 10);
  const tensor = new Float32Array(d * h * 4 * heads);
  for (const [s, name] of MATRICES.entries()) {
    for (let a = 0; a < d; a++) {
      for (let i = 0; i < heads; i++) {
        for (let j = 0; j < h; j++) {
          const viewed = name === "output" ? weights.output[a * d + i * h + j]! : weights[name][(i * h + j) * d + a]!;
          tensor[((a * h + j) * 4 + s) * heads + i] = viewed;
        }
      }
    }
  }
  const asHeads = weightsOf({ shape: [d, h, 4, heads], data: tensor });
  const expected = await decomposeLayer(asHeads, options({ ranks: [8, 4, 2] }), ops);
  const result = await decomposeLayer(weights, options({ ranks: [8, 4, 2], layout: "reference" }), ops);
  assertAlmostEquals(result.relativeError, expected.relativeError, 1e-9);
  const heads4d = await decomposeLayer(weights, options({ ranks: [8, 4, 2] }), ops);
  assert(
    Math.abs(heads4d.relativeError - result.relativeError) > 1e-4,
    "the layouts must differ for this to mean anything",
  );
});

Deno.test("balance gives every matrix its share where one is much larger", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights({ hiddenSize: 24, heads: 3, headSize: 8 }, 12);
  for (let i = 0; i < weights.output.length; i++) weights.output[i]! *= 50;
  const plain = await decomposeLayer(weights, options({ ranks: [8, 4, 2] }), ops);
  const balanced = await decomposeLayer(weights, options({ ranks: [8, 4, 2], balance: true }), ops);
  assert(balanced.matrixErrors.q < plain.matrixErrors.q, "the smaller matrices gain");
  assert(balanced.matrixErrors.o > plain.matrixErrors.o, "the largest pays");
});

Deno.test("laser is the optimal truncation: its error is the tail of the singular values", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights({ hiddenSize: 12, heads: 3, headSize: 4 }, 11);
  const diagonal = new Float32Array(144).map((_, i) => i % 13 === 0 ? 12 - i / 13 : 0);
  const result = await decomposeLayer({ ...weights, key: diagonal }, options({ mode: "laser", rate: 5 }), ops);
  const squares = (from: number): number =>
    Array.from({ length: from }, (_, i) => (i + 1) ** 2).reduce((a, b) => a + b, 0);
  assertAlmostEquals(result.matrixErrors.k, Math.sqrt(squares(6) / squares(12)), 1e-6); // rank 6 of 12
});

/** A layer above the size that is decomposed in float64, whose hidden mode's factor is improved from sweep to sweep. */
const LARGE = { hiddenSize: 384, heads: 12, headSize: 32 };

Deno.test("large layers: zeros, rank one, repeated singular values, tiny and huge entries", async () => {
  using ops = await createCpuOps();
  const [d, width] = [LARGE.hiddenSize, LARGE.heads * LARGE.headSize];
  const ranks = [128, 16, 2] as const;
  const zeros = scaled(randomWeights(LARGE, 21), 0);
  assertEquals((await decomposeLayer(zeros, options({ ranks }), ops)).relativeError, 0);

  const outer = new Float32Array(d * width).map((_, i) => (Math.floor(i / width) - 99.5) * (i % width % 32 + 1));
  const transposed = new Float32Array(d * width).map((_, i) => outer[i % d * width + Math.floor(i / d)]!);
  const rankOne = { ...LARGE, query: outer, key: outer, value: outer, output: transposed };
  const exact = await decomposeLayer(rankOne, options({ ranks }), ops);
  assert(exact.relativeError <= 1e-6, `${exact.relativeError}`);

  const identity = new Float32Array(d * d).map((_, i) => i % (d + 1) === 0 ? 1 : 0);
  const identities = { ...LARGE, query: identity, key: identity, value: identity, output: identity };
  const repeated = await decomposeLayer(identities, options({ ranks: [256, 32, 1] }), ops);
  assertAlmostEquals(repeated.relativeError, Math.sqrt(1 - 256 / 384), 1e-6);
  assert(repeated.converged);

  const weights = randomWeights(LARGE, 22);
  const reference = await decomposeLayer(weights, options({ ranks, sweeps: 2 }), ops);
  for (const factor of [1e-30, 1e30]) {
    const result = await decomposeLayer(scaled(weights, factor), options({ ranks, sweeps: 2 }), ops);
    assertAlmostEquals(result.relativeError, reference.relativeError, 1e-5, `${factor}`);
  }
});

Deno.test("large layers: a small error is measured as exactly as a large one", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights(LARGE, 23);
  const result = await decomposeLayer(weights, options({ mode: "laser", rank: 384, matrices: ["key", "output"] }), ops);
  assert(result.relativeError <= 3e-7, `${result.relativeError}`);
  const back = await reconstruct(result.factors, weights);
  assertAlmostEquals(result.relativeError, relativeDistance(weights, back), 2e-8);
  const coarse = await decomposeLayer(weights, options({ ranks: [128, 16, 2], sweeps: 1 }), ops);
  assertAlmostEquals(coarse.relativeError, relativeDistance(weights, await reconstruct(coarse.factors, weights)), 1e-7);
});
