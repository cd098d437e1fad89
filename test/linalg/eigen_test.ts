import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert/mod.js";
import { orthonormalColumns, plainProduct, symmetricEigen } from "../../src/linalg/mod.ts";
import { randomArray } from "../tucker/random.ts";

/** X Xᵀ for a random n×rank X whose columns fall like 1/k^decay. */
function gram(
  n: number,
  { rank = n, decay = 0, seed = n }: { rank?: number; decay?: number; seed?: number } = {},
): Float64Array {
  const x = Float64Array.from(randomArray(n * rank, seed), (value, i) => value * (i % rank + 1) ** -decay);
  return plainProduct(x, x, { m: n, k: rank, n, transposeB: true });
}

/** Residual ‖A v − λ v‖ and orthonormality, relative to the largest eigenvalue. */
async function checkPairs(matrix: Float64Array, n: number, count: number, what: string): Promise<Float64Array> {
  const { values, vectors } = await symmetricEigen(matrix, n, count);
  assertEquals([values.length, vectors.length], [n, n * count], what);
  const scale = Math.max(...values.map(Math.abs), Number.MIN_VALUE);
  const image = plainProduct(matrix, vectors, { m: n, k: n, n: count });
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < count; j++) {
      const residual = Math.abs(image[i * count + j]! - values[j]! * vectors[i * count + j]!);
      assert(residual <= 1e-13 * n * scale, `${what}: residual ${residual / scale} of pair ${j}`);
    }
  }
  assertOrthonormal(vectors, n, count, what);
  for (let i = 1; i < n; i++) assert(values[i]! <= values[i - 1]!, `${what}: values must descend`);
  return values;
}

function assertOrthonormal(vectors: Float64Array, n: number, count: number, what: string): void {
  const product = plainProduct(vectors, vectors, { m: count, k: n, n: count, transposeA: true });
  for (const [i, value] of product.entries()) {
    const error = Math.abs(value - (i % (count + 1) === 0 ? 1 : 0));
    assert(error <= 1e-13, `${what}: columns ${Math.floor(i / count)} and ${i % count} are off by ${error}`);
  }
}

Deno.test("symmetricEigen agrees with ml-matrix and has small residuals", async () => {
  for (const n of [1, 2, 3, 4, 7, 33, 64, 100]) {
    for (const decay of [0, 1, 4]) {
      const matrix = gram(n, { decay });
      const values = await checkPairs(matrix, n, Math.ceil(n / 2), `n ${n}, decay ${decay}`);
      const reference = new EigenvalueDecomposition(Matrix.from1DArray(n, n, matrix), { assumeSymmetric: true });
      const expected = [...reference.realEigenvalues].sort((a, b) => b - a);
      for (const [i, value] of expected.entries()) assertAlmostEquals(values[i]!, value, 1e-13 * n * expected[0]!);
    }
  }
});

Deno.test("symmetricEigen: all vectors, and matrices that aren't semidefinite", async () => {
  const n = 50;
  const random = randomArray(n * n, 3);
  const matrix = Float64Array.from({ length: n * n }, (_, i) => random[i]! + random[(i % n) * n + Math.floor(i / n)]!);
  const values = await checkPairs(matrix, n, n, "indefinite");
  assert(values[0]! > 0 && values[n - 1]! < 0);
});

Deno.test("symmetricEigen: hard spectra", async () => {
  const n = 40;
  const gram60 = gram(80, { seed: 60 });
  const identity = new Float64Array(n * n).map((_, i) => i % (n + 1) === 0 ? 1 : 0);
  await checkPairs(new Float64Array(n * n), n, n, "zeros");
  await checkPairs(identity, n, n, "identity");
  await checkPairs(gram(n, { rank: 1 }), n, n, "rank one");
  await checkPairs(gram(n, { rank: 7 }), n, 20, "rank 7, 20 wanted");
  await checkPairs(gram(n).map((value) => value * 1e-200), n, 10, "tiny");
  await checkPairs(gram(n).map((value) => value * 1e200), n, 10, "huge");
  const blocks = identity.map((value, i) => value + (Math.floor(i / n) < 20 && i % n < 20 ? 1 : 0));
  await checkPairs(blocks, n, n, "two levels of multiplicity 19 and 20");
  // Wilkinson's matrix: pairs of eigenvalues that agree in nearly all digits
  const wilkinson = new Float64Array(41 * 41).map((_, i) => {
    const [row, column] = [Math.floor(i / 41), i % 41];
    return row === column ? Math.abs(row - 20) : Math.abs(row - column) === 1 ? 1 : 0;
  });
  await checkPairs(wilkinson, 41, 41, "Wilkinson");
  // a cluster of 60 eigenvalues around 1, some 1e-13 apart: the matrix doesn't split, and their vectors are hardly determined
  const noise = gram(80, { rank: 20 });
  const cluster = noise.map((value, i) => 1e-13 * gram60[i]! + value + (i % 81 === 0 ? 1 : 0));
  await checkPairs(cluster, 80, 80, "cluster of 60");
  await checkPairs(gram(200, { decay: 0.3 }), 200, 90, "n 200");
});

Deno.test("symmetricEigen refuses what isn't a finite square matrix", async () => {
  await assertRejects(() => symmetricEigen(new Float64Array(5), 2), RangeError, "5 numbers");
  await assertRejects(() => symmetricEigen(new Float64Array([1, NaN, NaN, 1]), 2), RangeError, "NaN");
  await assertRejects(() => symmetricEigen(new Float64Array(4), 2, 3), RangeError, "3 vectors");
});

Deno.test("orthonormalColumns spans the columns, whatever their scale, and fills up dependent ones", async () => {
  const [m, n] = [60, 12];
  const random = Float64Array.from(randomArray(m * n, 8));
  const cases: Record<string, Float64Array> = {
    random,
    graded: random.map((value, i) => value * 10 ** -(2 * (i % n))),
    "nearly dependent": random.map((value, i) => i % n === 5 ? random[i - 1]! * (1 + 1e-9 * value) : value),
    dependent: random.map((value, i) => i % n === 5 ? random[i - 1]! : value),
    "with zero columns": random.map((value, i) => i % n > 8 ? 0 : value),
    zeros: new Float64Array(m * n),
  };
  for (const [what, matrix] of Object.entries(cases)) {
    const basis = await orthonormalColumns(matrix, m, n);
    assertOrthonormal(basis, m, n, what);
    const coordinates = plainProduct(basis, matrix, { m: n, k: m, n, transposeA: true });
    const back = plainProduct(basis, coordinates, { m, k: n, n });
    for (const [i, value] of matrix.entries()) {
      assert(Math.abs(back[i]! - value) <= 1e-12, `${what}: entry ${i} isn't in the span`);
    }
  }
});

Deno.test("orthonormalColumns refuses a wide matrix", async () => {
  await assertRejects(() => orthonormalColumns(new Float64Array(6), 2, 3), RangeError, "tall");
});
