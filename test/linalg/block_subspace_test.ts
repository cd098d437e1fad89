import { assert, assertEquals } from "@std/assert/mod.js";
import { filteredBasis, matmul, orthonormalBlock, startBlock } from "../../src/linalg/mod.ts";
import { randomArray } from "../tucker/random.ts";

const N = 768;
const RANK = 256;

/** The orthonormal cosine basis (DCT-II): row i of column k is √(2/n) cos(π(i + ½)k/n). */
function cosines(n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, index) => {
    const [i, k] = [Math.floor(index / n), index % n];
    return Math.sqrt((k === 0 ? 1 : 2) / n) * Math.cos(Math.PI * (i + 0.5) * k / n);
  });
}

const BASIS = cosines(N);

/** Q diag(values) Qᵀ: a matrix whose eigenvalues are known, and whose diagonal says little about them. */
async function matrixOf(values: Float64Array): Promise<Float64Array> {
  const scaled = BASIS.map((value, index) => value * values[index % N]!);
  return await matmul(scaled, BASIS, { m: N, k: N, n: N, transposeB: true });
}

interface Outcome {
  /** tr(UᵀGU) after each filter, as a share of the sum of the leading eigenvalues; the start's first. */
  readonly shares: readonly number[];
  readonly basis: Float64Array | undefined;
}

async function iterate(values: Float64Array, filters: number): Promise<Outcome> {
  const gram = await matrixOf(values);
  const matrix = new Float32Array(gram);
  const problem = {
    n: N,
    rank: RANK,
    product: (block: Float32Array): Promise<Float32Array> => matmul(matrix, block, { m: N, k: N, n: RANK }),
  };
  const best = values.toSorted().subarray(N - RANK).reduce((sum, value) => sum + value, 0);
  const diagonal = Float64Array.from({ length: N }, (_, i) => gram[i * (N + 1)]!);
  let basis = await orthonormalBlock(await problem.product(startBlock(diagonal, RANK)), N, RANK);
  const shares: number[] = [];
  for (let filter = 0; basis !== undefined; filter++) {
    const image = await matmul(gram, basis, { m: N, k: N, n: RANK });
    shares.push(basis.reduce((sum, value, index) => sum + value * image[index]!, 0) / best);
    if (filter === filters) break;
    basis = await filteredBasis(problem, { basis, columns: filter < 2 ? "any" : "eigenvectors" });
  }
  return { shares, basis };
}

const spectrum = (value: (k: number) => number): Float64Array => Float64Array.from({ length: N }, (_, k) => value(k));
const noise = randomArray(N, 5);

/** Eigenvalues, and what may be missing of the leading 256's sum after 2, 4 and 8 filters. */
const SPECTRA: readonly (readonly [string, Float64Array, readonly [number, number, number]])[] = [
  ["flat with a slope, as noise has it", spectrum((k) => (1 - k / (2 * N)) ** 2), [1e-2, 1e-3, 1e-4]],
  ["falling like 1/k", spectrum((k) => 1 / (k + 1)), [1.5e-2, 5e-3, 1e-3]],
  ["falling like 1/√k", spectrum((k) => 1 / Math.sqrt(k + 1)), [2e-2, 3e-3, 3e-4]],
  ["a step of two at the cut", spectrum((k) => k < RANK ? 1 : 0.5), [2e-2, 1e-5, 5e-6]],
  [
    "120 values around the cut that agree to 1e-4",
    spectrum((k) => k < 200 ? 1 : k < 320 ? 0.3 + 1e-4 * noise[k]! : 0.01),
    [1e-3, 1e-4, 1e-4],
  ],
  ["all equal", spectrum(() => 1), [1e-6, 1e-6, 1e-6]],
];

for (const [name, values, [two, four, eight]] of SPECTRA) {
  Deno.test(`filteredBasis approaches the energy of the leading subspace: ${name}`, async () => {
    const { shares, basis } = await iterate(values, 8);
    assertEquals(shares.length, 9);
    for (const [filters, missing] of [[2, two], [4, four], [8, eight]] as const) {
      const lost = 1 - shares[filters]!;
      assert(lost >= -1e-9 && lost <= missing, `${lost} missing after ${filters} filters: ${shares}`);
    }
    for (let i = 1; i < shares.length; i++) {
      assert(shares[i]! >= shares[i - 1]! - 1e-6, `filter ${i} lost energy: ${shares}`);
    }
    const gram = await matmul(basis!, basis!, { m: RANK, k: N, n: RANK, transposeA: true });
    for (const [index, value] of gram.entries()) {
      const error = Math.abs(value - (index % (RANK + 1) === 0 ? 1 : 0));
      assert(error <= 1e-7, `columns ${Math.floor(index / RANK)} and ${index % RANK} are off by ${error}`);
    }
  });
}

Deno.test("the iteration gives up where float32 can't resolve the cut or the rank isn't there", async () => {
  const hopeless: Record<string, Float64Array> = {
    zeros: spectrum(() => 0),
    "rank one": spectrum((k) => k === 0 ? 1 : 0),
    "a rank below the one wanted": spectrum((k) => k < 100 ? 1 : 0),
    "the cut seven orders below the largest": spectrum((k) => k < 100 ? 1 : 1e-7),
    "falling like 1/k³": spectrum((k) => (k + 1) ** -3),
  };
  for (const [name, values] of Object.entries(hopeless)) {
    assertEquals((await iterate(values, 6)).basis, undefined, name);
  }
});

Deno.test("small directions beside large ones are kept by a filter, or it is refused", async () => {
  const start = Float64Array.from({ length: N * RANK }, (_, i) => BASIS[Math.floor(i / RANK) * N + i % RANK]!);
  for (const [level, refused] of [[1e-3, false], [1e-4, false], [1e-7, true]] as const) {
    const small = spectrum((k) => level * (2 - k / N)); // beside 100 directions of 1
    const matrix = new Float32Array(await matrixOf(small.map((value, k) => k < 100 ? 1 : value)));
    const product = (block: Float32Array): Promise<Float32Array> => matmul(matrix, block, { m: N, k: N, n: RANK });
    const basis = await filteredBasis({ n: N, rank: RANK, product }, { basis: start, columns: "eigenvectors" });
    assertEquals(basis === undefined, refused, `level ${level}`);
    if (basis === undefined) continue;
    const rest = await matrixOf(small.map((value, k) => k < 100 ? 0 : value));
    const image = await matmul(rest, basis, { m: N, k: N, n: RANK });
    const kept = basis.reduce((sum, value, index) => sum + value * image[index]!, 0);
    const share = kept / small.subarray(100, RANK).reduce((sum, value) => sum + value, 0);
    assert(share >= 1 - 1e-6, `level ${level}: ${share} of the small directions' energy is kept`);
  }
});
