/**
 * 16-bit weights that cross the bus as they are stored: what the device makes of their patterns, against float64 arithmetic on the host and
 * against the same numbers uploaded as float32.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { openDevice } from "../../src/gpu/device.ts";
import { ExponentSums, type PatternFormat, SUM_WORDS } from "../../src/gpu/exponent_sums.ts";
import { bfloat16ToFloat32, float16ToFloat32 } from "../../src/onnx/float16.ts";
import { createGpuOps, gpuOpsOn } from "../../src/tucker/gpu_ops.ts";
import type { HalfWeights, TuckerOps } from "../../src/tucker/ops.ts";
import { testSeed } from "../support/seed.ts";
import { uniform } from "../tucker/random.ts";
import { skipGpu } from "./adapter.ts";

const software = { allowFallbackAdapter: true } as const;

function gpuTest(name: string, body: () => Promise<void>): void {
  Deno.test({ name: `16-bit weights: ${name}`, ignore: skipGpu }, body);
}

const FORMATS = ["float16", "bfloat16"] as const;

const widened = (format: PatternFormat, patterns: Uint16Array): Float32Array =>
  (format === "float16" ? float16ToFloat32 : bfloat16ToFloat32)(patterns);

function isFinitePattern(format: PatternFormat, pattern: number): boolean {
  const exponent = format === "float16" ? 0x7c00 : 0x7f80;
  return (pattern & exponent) !== exponent;
}

/** Every finite number of a format, both zeros among them. */
const everyPattern = (format: PatternFormat): Uint16Array =>
  Uint16Array.from({ length: 1 << 16 }, (_, i) => i).filter((pattern) => isFinitePattern(format, pattern));

/** A stored tensor, in pieces of so many bytes. */
function sourceOf(format: PatternFormat, patterns: Uint16Array, step = 4096): {
  readonly format: PatternFormat;
  readonly count: number;
  pieces(): Iterable<Uint8Array<ArrayBuffer>>;
} {
  // bytes at an odd place of a larger buffer, as a file's are
  const bytes = new Uint8Array(2 * patterns.length + 3).subarray(3);
  bytes.set(new Uint8Array(patterns.buffer, patterns.byteOffset, patterns.byteLength));
  function* pieces(): Generator<Uint8Array<ArrayBuffer>> {
    for (let start = 0; start < bytes.length; start += step) yield bytes.slice(start, start + step);
  }
  return { format, count: patterns.length, pieces };
}

const upTo = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

/** One matrix that is all of a tensor, row by row. */
function plain(format: PatternFormat, patterns: Uint16Array, rows: number): Parameters<Halves>[0][number] {
  const columns = patterns.length / rows;
  const place = { index: upTo(columns), indexed: "columns", rowStride: columns, columnStride: 1 } as const;
  return { source: sourceOf(format, patterns), rows, columns, ...place };
}

type Halves = NonNullable<TuckerOps["halves"]>;

async function uploaded(ops: TuckerOps, matrices: Parameters<Halves>[0]): Promise<HalfWeights> {
  const weights = await ops.halves!(matrices);
  if (weights === undefined) throw new Error("the matrices were refused");
  return weights;
}

const bitsOf = (numbers: Float32Array): Uint32Array =>
  new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);

/** Fails at the first number that differs in a bit. */
function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  assertEquals(actual.length, expected.length, what);
  const [ours, theirs] = [bitsOf(actual), bitsOf(expected)];
  const at = ours.findIndex((bits, i) => bits !== theirs[i]);
  if (at >= 0) throw new Error(`${what}: number ${at} is ${actual[at]}, not ${expected[at]}`);
}

/**
 * Factors at which the product with s has 53 bits that end in a tie between two float32 numbers, which the digits behind them aren't: rounding
 * once gives another number than rounding to float64 first.
 */
function tyingFactors(significand: number, count: number, next: () => number): number[] {
  const found: number[] = [];
  while (found.length < count) {
    const kept = BigInt(Math.floor((next() + 3) * 2 ** 22)) | 1n; // 24 bits, odd
    const tie = (kept << 40n) + (1n << 39n); // and 40 behind them
    const factor = tie / BigInt(significand); // the product falls short of the tie by less than the significand
    const short = tie - factor * BigInt(significand);
    if (factor < 2n ** 53n && factor >= 2n ** 52n && short > 0n && short < 2n ** 10n) {
      found.push(Number(factor) * 2 ** -53);
    }
  }
  return found;
}

gpuTest("every number times any factor is what the host's arithmetic gives, to the last bit", async () => {
  const seed = testSeed();
  const next = uniform(seed);
  using ops = await createGpuOps({ ...software, float16From: 1 });
  const ties = tyingFactors(2047, 4, next);
  for (const factor of ties) {
    const exact = BigInt(factor * 2 ** 53) * 2047n;
    const once = Number((exact >> 40n) & 1n); // the tie is missed from below: rounding once keeps the odd number
    assertEquals(once, 1);
    assert(Math.fround(2047 * factor) * 2 ** 53 !== Number((exact >> 40n) << 40n), "rounding twice gives the even one");
  }
  // ordinary ones; those that make subnormal float32 numbers, and zeros; and the ties
  const factors = [1, 1 / 3, 0.013, Math.PI * 1e-5, 2 ** -150, 1.2345e-38, 7.77e-46, 1e-60, 3e-320, 0, ...ties];
  for (let i = 0; i < 4; i++) factors.push(2 ** (20 * next()) * (1.5 + next() / 2));
  for (const format of FORMATS) {
    const patterns = everyPattern(format);
    const numbers = widened(format, patterns);
    const matrix = plain(format, patterns, 8);
    using weights = await uploaded(ops, [matrix, matrix]);
    for (const factor of factors) {
      // two factors: numbers that have no common one are stored as float32
      const placed = [{ matrix: 0, factor }, { matrix: 1, factor: factor === 0 ? 1 : 0 }];
      using tensor = weights.tensor(placed, [8, 2, 1, matrix.columns]);
      const rows = Array.from(
        { length: 8 },
        (_, row) => numbers.subarray(row * matrix.columns, (row + 1) * matrix.columns),
      );
      const expected = Float32Array.from(
        rows.flatMap((row) => placed.flatMap((place) => [...row.map((value) => value * place.factor)])),
      );
      // float32 has no room for the largest bfloat16 numbers times more than 1
      assertSameBits(await ops.read(tensor), expected, `seed ${seed}: ${format} times ${factor}`);
    }
  }
});

gpuTest("squares are summed exactly, and numbers that aren't finite are seen", async () => {
  using ops = await createGpuOps({ ...software, float16From: 1 });
  for (const format of FORMATS) {
    const patterns = everyPattern(format);
    const numbers = widened(format, patterns);
    // in units of the smallest square, as integers of any size
    const [unit, bits] = format === "float16" ? [24, 10] : [133, 7];
    const integer = (value: number): bigint => BigInt(value * 2 ** unit);
    const exact = numbers.reduce((sum, value) => sum + integer(value) ** 2n, 0n);
    using weights = await uploaded(ops, [plain(format, patterns, 8)]);
    const [squares] = weights.squares;
    const expected = Number(exact) * 2 ** (-2 * unit);
    assert(Math.abs(squares! / expected - 1) <= 4 * Number.EPSILON, `${format}: ${squares}, not ${expected}`);

    const tame = new Uint16Array(4096).fill(1 << bits);
    for (let pattern = 0; pattern < 1 << 16; pattern += 37) {
      if (isFinitePattern(format, pattern)) continue;
      const spoiled = tame.with(4095 - pattern % 4096, pattern);
      using bad = await uploaded(ops, [plain(format, tame, 4), plain(format, spoiled, 4)]);
      assertEquals(bad.squares.map(Number.isFinite), [true, false], `${format} ${pattern.toString(16)}`);
    }
  }
});

gpuTest("many equal numbers don't overflow the sums", async () => {
  using ops = await createGpuOps({ ...software, float16From: 1 });
  const patterns = new Uint16Array(2 ** 22).fill(0x7bff); // the largest: its square has the most bits
  using weights = await uploaded(ops, [plain("float16", patterns, 2 ** 11)]);
  assertEquals(weights.squares, [65504 ** 2 * 2 ** 22]);
});

Deno.test("16-bit weights: sums by exponent tell what float16 storage would make zero", () => {
  const words = new Uint32Array(SUM_WORDS);
  const put = (bin: number, low: number, high: number): void =>
    words.set([low % 65536, low >>> 16, high % 65536, high >>> 16], 4 * bin);
  put(0, 1, 0); // one number 2⁻²⁴
  put(9, 300000, 5); // subnormal numbers of at least 2⁻¹⁵
  put(10, 0, 512); // a number 2⁻¹⁴: its significand's square is 2²⁰
  put(39, 7, 0); // numbers of at least 2¹⁵
  const sums = new ExponentSums("float16", words);
  assert(sums.finite);
  const [tiny, small, least, large] = [2 ** -48, (300000 + 5 * 2048) * 2 ** -48, 2 ** -28, 7 * 2 ** 10];
  assertEquals(sums.squares, tiny + small + least + large);
  assertEquals([-31, -1, 0, 1, 9, 10].map((scale) => sums.flushed(scale)), [
    tiny + small + least + large,
    tiny + small + least,
    tiny + small,
    tiny,
    tiny,
    0,
  ]);
  put(40, 1, 0);
  assert(!new ExponentSums("float16", words).finite);
  assert(new ExponentSums("bfloat16", words).finite, "bfloat16 has larger exponents");
});

/** Random finite patterns of moderate size, a few subnormal ones and zeros among them. */
function randomPatterns(format: PatternFormat, count: number, seed: number): Uint16Array {
  const next = uniform(seed);
  const exponents = format === "float16" ? [8, 14] : [117, 123];
  const bits = format === "float16" ? 10 : 7;
  return Uint16Array.from({ length: count }, (_, i) => {
    if (i % 97 === 13) return Math.floor((next() + 1) * (1 << (bits - 1))); // subnormal
    const exponent = Math.floor(exponents[0]! + (next() + 1) / 2 * (exponents[1]! - exponents[0]!));
    const sign = next() < 0 ? 0x8000 : 0;
    return sign | exponent << bits | Math.floor((next() + 1) * (1 << (bits - 1)));
  });
}

interface Case {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Where number (i, j) is; picks are over a tensor that is larger than the matrix. */
  readonly indexed: "rows" | "columns";
  readonly transposed: boolean;
  readonly index: (count: number) => Int32Array;
  /** Length of the tensor's indexed side. */
  readonly whole: number;
}

const CASES: readonly Case[] = [
  { name: "as it lies", rows: 33, columns: 66, indexed: "columns", transposed: false, index: upTo, whole: 66 },
  { name: "turned", rows: 70, columns: 130, indexed: "columns", transposed: true, index: upTo, whole: 130 },
  { name: "odd rows", rows: 5, columns: 2, indexed: "rows", transposed: false, index: upTo, whole: 5 },
  { name: "odd rows, turned", rows: 7, columns: 4, indexed: "rows", transposed: true, index: upTo, whole: 7 },
  // the second of three packed projections; a tensor of odd width
  {
    name: "packed",
    rows: 9,
    columns: 24,
    indexed: "columns",
    transposed: false,
    index: (n) => upTo(n).map((i) => i + 23),
    whole: 47,
  },
  {
    name: "packed, turned",
    rows: 9,
    columns: 24,
    indexed: "columns",
    transposed: true,
    index: (n) => upTo(n).map((i) => i + 23),
    whole: 47,
  },
  // heads of grouped queries, each twice; heads side by side in another order
  {
    name: "repeated",
    rows: 12,
    columns: 32,
    indexed: "columns",
    transposed: false,
    index: (n) => upTo(n).map((i) => i % 8 + 8 * (i >> 4)),
    whole: 17,
  },
  {
    name: "reversed rows",
    rows: 40,
    columns: 36,
    indexed: "rows",
    transposed: false,
    index: (n) => upTo(n).reverse(),
    whole: 40,
  },
  {
    name: "reversed rows, turned",
    rows: 40,
    columns: 36,
    indexed: "rows",
    transposed: true,
    index: (n) => upTo(n).reverse(),
    whole: 40,
  },
];

gpuTest("matrices come out as uploaded float32 numbers do, however they are stored", async () => {
  const seed = testSeed();
  for (const limits of [{} as { bindingBytes?: number }, { bindingBytes: 20480 }]) {
    const device = await openDevice({ ...software, limits });
    using ops = await gpuOpsOn(device, { float16From: 1 });
    for (const format of FORMATS) {
      for (const [at, { name, rows, columns, indexed, transposed, index, whole }] of CASES.entries()) {
        const [height, width] = indexed === "rows" ? [whole, columns] : [rows, whole];
        const matrices = [0, 1].map((slot) => {
          const places = index(indexed === "rows" ? rows : columns);
          if (slot === 1) places.reverse(); // each has places of its own

          const patterns = randomPatterns(format, height * width, seed + 2 * at + slot);
          const source = sourceOf(format, patterns, 64);
          const [rowStride, columnStride] = transposed ? [1, height] : [width, 1];
          return {
            source,
            rows,
            columns,
            index: places,
            indexed,
            rowStride,
            columnStride,
            numbers: widened(format, patterns),
          };
        });
        const shape = [rows, 2, 1, columns] as const;
        const tensorOf = (factors: readonly number[]): Float32Array =>
          Float32Array.from({ length: 2 * rows * columns }, (_, n) => {
            const [row, slot, column] = [Math.floor(n / columns / 2), Math.floor(n / columns) % 2, n % columns];
            const { numbers, index: places, rowStride, columnStride } = matrices[slot]!;
            const [x, y] = indexed === "rows" ? [places[row]!, column] : [row, places[column]!];
            return numbers[x * rowStride + y * columnStride]! * factors[slot]!;
          });
        const what = `seed ${seed}: ${format}, ${name}, ${JSON.stringify(limits)}`;
        using weights = await uploaded(ops, matrices);
        const squares = tensorOf([1, 1]);
        for (const slot of [0, 1]) {
          let sum = 0;
          for (let n = 0; n < squares.length; n++) if (Math.floor(n / columns) % 2 === slot) sum += squares[n]! ** 2;
          assert(Math.abs(weights.squares[slot]! / sum - 1) < 1e-13, `${what}: ${weights.squares[slot]}, not ${sum}`);
        }
        const factor = 0.37 / Math.sqrt(weights.squares[0]! + weights.squares[1]!);
        const placed = (factors: readonly number[]) => factors.map((factor, matrix) => ({ matrix, factor }));

        using half = weights.tensor(placed([factor, factor]), shape);
        const how = ops.adapter;
        assertEquals(
          how.endsWith(", weights stored as float16"),
          4 * rows * columns <= (limits.bindingBytes ?? Infinity),
          what,
        );
        using half32 = await ops.weights!(tensorOf([factor, factor]), shape, factor);
        assertEquals(ops.adapter, how, what);
        assertSameBits(await ops.read(half), await ops.read(half32), `${what}, float16`);

        const factors = [factor, factor * 1.0001];
        using float = weights.tensor(placed(factors), shape);
        assert(!ops.adapter.includes("float16"), what);
        assertSameBits(await ops.read(float), tensorOf(factors), `${what}, float32`);

        if (limits.bindingBytes !== undefined) continue; // one matrix may be stored otherwise than two
        using alone = weights.tensor([{ matrix: 1, factor }], [rows, 1, 1, columns]);
        const both = await ops.read(half);
        const second = both.filter((_, n) => Math.floor(n / columns) % 2 === 1);
        assertSameBits(await ops.read(alone), second, `${what}, the second alone`);
      }
    }
    assertEquals(device.buffers.inUse, 0);
  }
});

gpuTest("float16 storage is refused where it would lose what counts, as it is for float32 numbers", async () => {
  using ops = await createGpuOps({ ...software, float16From: 1 });
  // one larger number and many bfloat16 numbers that are too small for float16's exponents
  const tiny = 0x2b80; // 2⁻⁴⁰
  for (const [count, stored] of [[100, "float16"], [2 ** 19, "float32"]] as const) {
    const patterns = new Uint16Array(count).fill(tiny);
    patterns[7] = 0x3580; // 2⁻²⁰
    const numbers = widened("bfloat16", patterns);
    const norm = Math.sqrt(numbers.reduce((sum, value) => sum + value * value, 0));
    using weights = await uploaded(ops, [plain("bfloat16", patterns, 2)]);
    using ours = weights.tensor([{ matrix: 0, factor: 1 / norm / 2 ** 15 }], [2, 1, 1, count / 2]);
    const how = ops.adapter;
    assertEquals(how.includes("float16"), stored === "float16", how);
    using theirs = await ops.weights!(
      numbers.map((value) => value / norm / 2 ** 15),
      [2, 1, 1, count / 2],
      1 / norm / 2 ** 15,
    );
    assertEquals(ops.adapter, how);
    assertSameBits(await ops.read(ours), await ops.read(theirs), stored);
  }
});

gpuTest("as many bytes cross the bus as the tensors have, each tensor once; others are left to float32", async () => {
  const device = await openDevice({ ...software, limits: { bindingBytes: 8192 } });
  using ops = await gpuOpsOn(device, { float16From: 64 });
  const patterns = randomPatterns("float16", 3 * 8 * 10, 5);
  const source = sourceOf("float16", patterns, 64);
  const part = (slot: number) => ({
    source,
    rows: 10,
    columns: 8,
    index: upTo(8).map((i) => i + 8 * slot),
    indexed: "columns" as const,
    rowStride: 24,
    columnStride: 1,
  });
  const before = ops.uploadedBytes!;
  using weights = await uploaded(ops, [part(0), part(1), part(2)]);
  using _tensor = weights.tensor([0, 1, 2].map((matrix) => ({ matrix, factor: 1e-3 })), [10, 3, 1, 8]);
  assertEquals(ops.uploadedBytes! - before, 2 * patterns.length + 4 * 3 * 8, "the numbers, and the places of columns");

  assertEquals(await ops.halves!([{ ...part(0), rows: 7 }]), undefined, "too few to be worth a wait");
  assertEquals(await ops.halves!([part(0)]), undefined, "a tensor of three times as many numbers");
  const [large, odd] = [randomPatterns("float16", 8192, 6), randomPatterns("float16", 99, 7)];
  assertEquals(await ops.halves!([plain("float16", large, 64)]), undefined, "more than a binding");
  assertEquals(await ops.halves!([plain("float16", odd, 11)]), undefined, "rows of nine numbers");
  assertEquals(device.buffers.inUse > 0, true);
});
