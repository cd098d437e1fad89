/**
 * Float16 storage: what is stored, when it is used, and every operation on it against float64 twins of the same numbers.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert/mod.js";
import { narrowHalf } from "../../kernels/mod.ts";
import { MATRICES } from "../../src/attention/types.ts";
import { GpuArray } from "../../src/gpu/array.ts";
import { openDevice } from "../../src/gpu/device.ts";
import { narrow, ROUNDING_LIMIT, storedUnit } from "../../src/gpu/half.ts";
import { float32Bits } from "../../src/gpu/operand.ts";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import { testSeed } from "../support/seed.ts";
import { options, randomWeights } from "../tucker/layers.ts";
import { randomArray, uniform } from "../tucker/random.ts";
import { skipGpu } from "./adapter.ts";
import { assertTwin, dot } from "./twin.ts";

const software = { allowFallbackAdapter: true } as const;
/** Some factor that normalises weights: no power of two. */
const UNIT = 0.013;

function gpuTest(name: string, body: () => Promise<void>): void {
  Deno.test({ name: `float16 storage: ${name}`, ignore: skipGpu }, body);
}

/** Float16 numbers of many magnitudes below 1, times a factor: as the weights of a float16 model reach the device. */
function halfNumbers(length: number, seed: number, unit = UNIT): Float32Array {
  const next = uniform(seed);
  return Float32Array.from(
    { length },
    () => Math.f16round(next() * 2 ** Math.floor(6 * next())) * unit,
  );
}

/** The numbers that a kernel reads: halves times the unit, each rounded to float32 once. */
function stored(data: Float32Array, unit = UNIT): Float32Array {
  const scale = storedUnit(unit);
  return data.map((value) => Math.f16round(value / scale) * scale);
}

gpuTest("rounds to nearest even as IEEE 754 says, and measures what it loses", async () => {
  using device = await openDevice(software);
  const unit = Math.fround(0.7);
  const seed = testSeed();
  const next = uniform(seed);
  const special = [
    0,
    -0,
    1,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    1 - 2 ** -12,
    65504,
    65519,
    2 ** -14,
    1.5 * 2 ** -14,
    -2.5,
  ];
  const numbers = [...special, ...Array.from({ length: 2000 }, () => next() * 2 ** Math.round(next() * 13))];
  const data = Float32Array.from(numbers, (value) => value * unit);
  const flushed = (value: number): number => Math.abs(value) < 2 ** -14 ? 0 : Math.f16round(value);
  const pipeline = await device.pipelines.get(narrowHalf);
  for (const count of [data.length, data.length - 1, 5]) {
    using source = GpuArray.from(device, data.subarray(0, count), "source");
    using half = new GpuArray(device, count, "half", unit);
    assertEquals(half.slice.size, Math.ceil(count / 8) * 16, "two bytes a number, in whole vectors");
    using partial = new GpuArray(device, 4, "partial");
    const params = { count, first: 0, unit: float32Bits(unit), inverse: float32Bits(1 / unit), groups: 2 };
    device.commands.dispatch(pipeline, params, [source.slice, half.slice, partial.slice]);
    const back = await half.read();
    let error = 0, norm = 0;
    for (let i = 0; i < count; i++) {
      const inverse = Math.fround(1 / unit);
      const expected = Math.fround(unit * flushed(Math.fround(data[i]! * inverse)));
      assertEquals(Math.abs(back[i]! - expected), 0, `seed ${seed}: number ${i}, ${data[i]}`);
      error += (data[i]! - expected) ** 2;
      norm += data[i]! ** 2;
    }
    const [errorA, normA, errorB, normB] = await partial.read();
    assertAlmostEquals((errorA! + errorB!) / error, 1, 1e-2, `seed ${seed}`);
    assertAlmostEquals((normA! + normB!) / norm, 1, 1e-5, `seed ${seed}`);
  }
});

gpuTest("takes float16 and bfloat16 weights, in pieces too, and loses no more than float32 does", async () => {
  for (const limits of [{}, { bufferBytes: 2048 }]) {
    using device = await openDevice({ ...software, limits });
    const pipeline = () => device.pipelines.get(narrowHalf);
    const bfloat16 = Float32Array.from(randomArray(1001, 3), (value) => {
      const word = new DataView(new ArrayBuffer(4));
      word.setFloat32(0, value);
      word.setUint16(2, 0);
      return word.getFloat32(0) * UNIT;
    });
    for (const data of [halfNumbers(1001, 2), bfloat16, new Float32Array(7)]) {
      const result = await narrow(device, data, { unit: UNIT, pipeline });
      if ("refused" in result) throw new Error(result.refused);
      using array = result.array;
      assert(result.rounding <= 1e-7, `${result.rounding}`);
      const back = await array.read();
      data.forEach((value, i) => assert(Math.abs(back[i]! - value) <= 2 ** -22 * Math.abs(value), `${i}: ${value}`));
    }
    assertEquals(device.buffers.inUse, 0);
  }
});

gpuTest("refuses what it would change, and says why", async () => {
  using device = await openDevice({ ...software, limits: { bufferBytes: 65536 } });
  const refusal = async (data: Float32Array, unit: number): Promise<string> => {
    const result = await narrow(device, data, { unit, pipeline: () => device.pipelines.get(narrowHalf) });
    if ("refused" in result) return result.refused;
    throw new Error(`accepted, rounded by ${result.rounding}`);
  };
  assert((await refusal(randomArray(1000, 4), 1)).includes("digits"));
  assert((await refusal(halfNumbers(1000, 5), 0.0131)).includes("digits"), "another factor");
  for (const unit of [NaN, 0, -1, Infinity]) assert((await refusal(halfNumbers(9, 6), unit)).includes("factor"));
  assert((await refusal(halfNumbers(40000, 7), UNIT)).includes("80000 bytes"));
  // right where the sample looks, wrong everywhere else: only the measurement can tell
  const sly = halfNumbers(20000, 8);
  const step = Math.floor(sly.length / 4096);
  for (let i = 0; i < sly.length; i++) if (i % step !== 0) sly[i]! *= 1 + 2 ** -12;
  assert((await refusal(sly, UNIT)).includes("round them by"), "the rounding wasn't measured");
  // larger than promised: cut off, which the measurement shows
  assert((await refusal(Float32Array.of(3, 0.5, 0.25), 1)).includes("round them by"));
  assertEquals(device.buffers.inUse, 0);
});

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

async function checkModes(ops: TuckerOps, shape: readonly number[], columns: number): Promise<void> {
  const given = halfNumbers(size(shape), size(shape));
  using tensor = await ops.weights!(given, shape, UNIT);
  assert(ops.adapter.endsWith(", weights stored as float16"), ops.adapter);
  const data = stored(given);
  assertEquals(await ops.read(tensor), data);
  for (const [mode, length] of shape.entries()) {
    const inner = size(shape.slice(mode + 1)), outer = size(shape.slice(0, mode));
    const at = (o: number, k: number, i: number): number => data[(o * length + k) * inner + i]!;
    const factor = randomArray(length * columns, mode);
    using matrix = ops.tensor(factor, [length, columns]);
    using product = ops.modeProduct(tensor, mode, matrix);
    const numbers = await ops.read(product);
    for (let index = 0; index < numbers.length; index++) {
      const [i, j, o] = [index % inner, Math.floor(index / inner) % columns, Math.floor(index / inner / columns)];
      const twin = dot(length, (k) => [at(o, k, i), factor[k * columns + j]!]);
      assertTwin(numbers[index]!, twin, `[${shape}] ×${mode} by ${columns}, entry ${index}`);
    }
    if (length > 80) continue; // the twin would take seconds
    const gram = await ops.gram(tensor, mode);
    for (let j = 0; j < length; j++) {
      for (let k = j; k < length; k++) {
        const twin = dot(outer * inner, (t) => {
          const [o, i] = [Math.floor(t / inner), t % inner];
          return [at(o, j, i), at(o, k, i)];
        });
        assertTwin(gram[j * length + k]!, twin, `Gram of [${shape}] in mode ${mode}, (${j}, ${k})`);
        assertEquals(gram[j * length + k], gram[k * length + j]);
      }
    }
  }
}

gpuTest("every operation equals its twin, whatever kernel computes it", async () => {
  using ops = await createGpuOps({ ...software, float16From: 1 });
  await checkModes(ops, [40, 4, 3, 16], 2); // skinny, tall, four rows
  await checkModes(ops, [70, 4, 2, 8], 20); // tiles
  await checkModes(ops, [9, 3, 5, 7], 5); // nothing divisible by 4
  await checkModes(ops, [6, 4, 2, 10], 3); // pairs but not fours
  await checkModes(ops, [1, 1, 1], 1);
  await checkModes(ops, [600, 12], 7); // tall
});

gpuTest("every operation equals its twin where sums and tiles are cut", async () => {
  for (const parallelWorkgroups of [1, 512]) {
    using ops = await createGpuOps({ ...software, float16From: 1, limits: { parallelWorkgroups } });
    await checkModes(ops, [2, 24, 600], 5);
    if (parallelWorkgroups === 1) await checkModes(ops, [68, 3, 20], 66); // large tiles
  }
  // the halves fit a binding that as many float32 numbers don't
  using ops = await createGpuOps({ ...software, float16From: 1, limits: { bindingBytes: 8192 } });
  await checkModes(ops, [16, 4, 2, 32], 6);
});

gpuTest("matrix products take it on either side, transposed or not", async () => {
  using ops = await createGpuOps({ ...software, float16From: 1 });
  const make = (data: Float32Array, shape: readonly number[], half: boolean): Promise<OpsTensor> | OpsTensor =>
    half ? ops.weights!(data, shape, UNIT) : ops.tensor(data, shape);
  for (const [m, k, n] of [[40, 36, 24], [7, 33, 65], [5, 64, 128]] as const) {
    const [left, right] = [halfNumbers(m * k, m), halfNumbers(k * n, n)].map((data) => stored(data)) as [
      Float32Array,
      Float32Array,
    ];
    for (const [halfA, halfB] of [[true, false], [false, true], [true, true]] as const) {
      for (const [transposeA, transposeB] of [[false, false], [true, false], [false, true], [true, true]] as const) {
        using a = await make(left, transposeA ? [k, m] : [m, k], halfA);
        using b = await make(right, transposeB ? [n, k] : [k, n], halfB);
        using product = ops.matmul(a, b, { transposeA, transposeB });
        const numbers = await ops.read(product);
        for (let index = 0; index < numbers.length; index++) {
          const [i, j] = [Math.floor(index / n), index % n];
          const twin = dot(
            k,
            (p) => [left[transposeA ? p * m + i : i * k + p]!, right[transposeB ? j * k + p : p * n + j]!],
          );
          assertTwin(numbers[index]!, twin, `${m}×${k}×${n} ${halfA} ${halfB} ${transposeA} ${transposeB}, ${index}`);
        }
      }
    }
  }
});

gpuTest("a float16 model's layer decomposes as in float64, and the adapter's text says how it was stored", async () => {
  const weights = randomWeights({ hiddenSize: 64, heads: 4, headSize: 16 }, 11);
  using gpu = await createGpuOps({ ...software, float16From: 1 });
  using cpu = await createCpuOps();
  const plain = gpu.adapter;
  assert(!plain.includes("float16"), plain);
  for (const ranks of [[16, 4, 2], [64, 16, 4]] as const) {
    for (const name of MATRICES) weights[name].forEach((value, i) => weights[name][i] = Math.f16round(0.03 * value));
    const [ours, reference] = [
      await decomposeLayer(weights, options({ ranks, sweeps: 3 }), gpu),
      await decomposeLayer(weights, options({ ranks, sweeps: 3 }), cpu),
    ];
    assertEquals(gpu.adapter, `${plain}, weights stored as float16`);
    assertAlmostEquals(ours.relativeError, reference.relativeError, 2e-6, `${ranks}`);
  }
  const laser = await decomposeLayer(weights, options({ mode: "laser", rank: 9 }), gpu);
  assert(gpu.adapter.includes("float16"), gpu.adapter);
  const expected = await decomposeLayer(weights, options({ mode: "laser", rank: 9 }), cpu);
  assertAlmostEquals(laser.relativeError, expected.relativeError, 1e-6);
  // 24-bit fractions, and factors that differ by matrix, stay float32
  const given = { ranks: [16, 4, 2], sweeps: 1 } as const;
  await decomposeLayer(weights, options({ ...given, balance: true }), gpu);
  assertEquals(gpu.adapter, plain);
  await decomposeLayer(randomWeights({ hiddenSize: 64, heads: 4, headSize: 16 }, 12), options(given), gpu);
  assertEquals(gpu.adapter, plain);
});

Deno.test("float16 storage: the bound on the rounding keeps errors within 1e-4", () => {
  assert(3 * ROUNDING_LIMIT <= 1e-4);
  for (const unit of [1, 0.013, 3e-20, 7e20, 1.9999999]) {
    const scale = storedUnit(unit);
    assertEquals(scale, Math.fround(scale));
    assert(1 / scale <= 2 ** 15 && 1 / scale > 2 ** 14, `${unit}: 1 must be just within the range`);
    const doublings = Math.log2(unit / scale);
    assertAlmostEquals(doublings, Math.round(doublings), 1e-6, "a power of two apart");
  }
  assertEquals([NaN, 0, -1, Infinity].map(storedUnit), [0, 0, 0, 0]);
});
