/**
 * The product kernels on random strided operands against their float64 twins, every way of loading included.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import { LOAD, matmul, matmulSkinny, sumPartials } from "../../kernels/mod.ts";
import { GpuArray } from "../../src/gpu/array.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { type Contraction, loadOf, operandParams } from "../../src/gpu/operand.ts";
import { randomArray, uniform } from "../tucker/random.ts";
import { skipGpu } from "./adapter.ts";
import { assertTwin, productTwin, type Strides } from "./twin.ts";
import { testSeed } from "../support/seed.ts";

const UNTOUCHED = 123456;
const options = { allowFallbackAdapter: true } as const;

/** Dense operands of `count` x and the contraction, laid out so that `load` is the way to load them. */
function operand(load: number, count: number, k: Contraction, base: number): Strides {
  const runs = k.length / k.inner;
  if (load === LOAD.alongK) {
    // [x][kOuter][kInner]
    return {
      base,
      count,
      inner: count,
      outerStride: 0,
      innerStride: k.length,
      kOuterStride: k.inner,
      kInnerStride: 1,
    };
  }
  // [kOuter][kInner][x], in two halves of x far apart where x is even
  const inner = count % 8 === 0 ? count / 2 : count;
  const width = inner;
  return {
    base,
    count,
    inner,
    outerStride: runs * k.inner * width,
    innerStride: 1,
    kOuterStride: k.inner * width,
    kInnerStride: width,
  };
}

interface Case {
  readonly T: number;
  readonly loads: readonly [number, number];
  readonly counts: readonly [number, number];
  readonly k: Contraction;
  readonly base: number;
}

async function check(device: GpuDevice, test: Case): Promise<void> {
  const { T, k, base } = test;
  const [a, b] = [0, 1].map((side) => {
    const strides = operand(test.loads[side]!, test.counts[side]!, k, base);
    return { strides, data: randomArray(base + strides.count * k.length, 7 * side + k.length) };
  }) as [{ strides: Strides; data: Float32Array }, { strides: Strides; data: Float32Array }];
  using left = GpuArray.from(device, a.data, "a");
  using right = GpuArray.from(device, b.data, "b");
  const [x, y] = test.counts;
  const chunk = 4 * T, chunks = Math.ceil(k.length / chunk);
  // y runs in two halves in the result as well; a gap of one number after each row must stay untouched
  const inner = b.strides.inner;
  const out = { outX: inner + 1, outOuterStride: x * (inner + 1), outInnerStride: 1 };
  const outChunk = (y / inner) * out.outOuterStride;
  using result = GpuArray.from(device, new Float32Array(chunks * outChunk).fill(UNTOUCHED), "out");
  const pipeline = await device.pipelines.get(matmul, { T });
  const [loadA, loadB] = [a, b].map(({ strides }) => loadOf({ ...strides, slice: left.slice, unit: 0 }, k)) as [
    number,
    number,
  ];
  device.commands.dispatch(pipeline, {
    ...operandParams("a", { ...a.strides, load: loadA }),
    ...operandParams("b", { ...b.strides, load: loadB }),
    k: k.length,
    kStart: 0,
    kInner: k.inner,
    chunk,
    chunks,
    outBase: 0,
    ...out,
    outChunk,
    accumulate: 0,
    upperOnly: 0,
  }, [left.slice, right.slice, result.slice]);
  const numbers = await result.read();
  const what = `T=${T} loads ${loadA},${loadB} ${x}×${y} over ${k.length} in runs of ${k.inner}`;
  for (let s = 0; s < chunks; s++) {
    for (let i = 0; i < x; i++) {
      for (let j = 0; j < y; j++) {
        const index = s * outChunk + i * out.outX + Math.floor(j / inner) * out.outOuterStride + j % inner;
        const range = { start: s * chunk, length: Math.min((s + 1) * chunk, k.length), inner: k.inner };
        assertTwin(numbers[index]!, productTwin([a, b], [i, j], range), `${what}, chunk ${s}, (${i}, ${j})`);
      }
      for (let half = 0; half < y / inner; half++) {
        const gap = s * outChunk + i * out.outX + half * out.outOuterStride + inner;
        assertEquals(numbers[gap], UNTOUCHED, `${what}: wrote beyond row ${i}`);
      }
    }
  }
}

Deno.test({ name: "matmul equals its twin for every pair of loads, both tile sizes", ignore: skipGpu }, async () => {
  using device = await openDevice(options);
  for (const T of [8, 16]) {
    for (const loadA of Object.values(LOAD)) {
      for (const loadB of Object.values(LOAD)) {
        // 72 and 136 lie just past one tile of 64 and of 128; a base of 3 or 5 rules vectors out
        const base = loadA === LOAD.scalar || loadB === LOAD.scalar ? 3 : 4;
        const k = { length: 96, inner: 24 };
        await check(device, { T, loads: [loadA, loadB], counts: [8 * T + 8, 16], k, base });
        await check(device, { T, loads: [loadA, loadB], counts: [16, 8 * T + 8], k, base });
      }
    }
  }
});

Deno.test({ name: "matmul's tiles end at any row and column", ignore: skipGpu }, async () => {
  using device = await openDevice(options);
  const loads = [LOAD.scalar, LOAD.alongK] as const;
  const k = { length: 8, inner: 8 };
  // around every block of 4, the two halves of a tile, and the tile
  for (const count of [1, 3, 4, 5, 29, 31, 32, 33, 34, 35, 36, 37, 61, 63, 64, 65]) {
    await check(device, { T: 8, loads, counts: [count, 66 - count], k, base: 0 });
  }
});

Deno.test({ name: "matmul equals its twin on random sizes off every tile", ignore: skipGpu }, async () => {
  using device = await openDevice(options);
  const seed = testSeed();
  const next = uniform(seed);
  const whole = (below: number): number => 1 + Math.floor((next() + 1) / 2 * below);
  const loads = Object.values(LOAD);
  for (let trial = 0; trial < 12; trial++) {
    const inner = whole(20);
    const test: Case = {
      T: trial % 2 === 0 ? 8 : 16,
      loads: [loads[whole(3) - 1]!, loads[whole(3) - 1]!],
      counts: [whole(90), whole(90)],
      k: { length: inner * whole(8), inner },
      base: whole(5) - 1,
    };
    await check(device, test).catch((error) => {
      throw new Error(`seed ${seed}, trial ${trial}: ${error.message}`);
    });
  }
});

Deno.test({ name: "every product kernel adds to what the output holds if asked to", ignore: skipGpu }, async () => {
  using device = await openDevice(options);
  const [x, y, k] = [3, 50, 20];
  const [aData, bData] = [randomArray(x * k, 1), randomArray(k * y, 2)];
  using a = GpuArray.from(device, aData, "a");
  using b = GpuArray.from(device, bData, "b");
  using partial = GpuArray.from(device, new Float32Array(x * y).fill(0.5), "partial");
  using out = GpuArray.from(device, new Float32Array(x * y).fill(10), "out");
  const left = { base: 0, count: x, inner: x, outerStride: 0, innerStride: k, kOuterStride: 0, kInnerStride: 1 };
  const right = { base: 0, count: y, inner: y, outerStride: 0, innerStride: 1, kOuterStride: 0, kInnerStride: y };
  const output = { outBase: 0, outX: y, outOuterStride: 0, outInnerStride: 1, accumulate: 1 };
  const sums = { ...output, k, kStart: 0, chunk: 32, chunks: 1, outChunk: 0 };
  device.commands.dispatch(await device.pipelines.get(matmulSkinny), {
    ...sums,
    x,
    y,
    inner: y,
    aBase: 0,
    aX: k,
    aK: 1,
    bBase: 0,
    bOuterStride: 0,
    bInnerStride: 1,
    bK: y,
  }, [a.slice, b.slice, out.slice]);
  device.commands.dispatch(await device.pipelines.get(sumPartials), {
    ...output,
    x,
    y,
    inner: y,
    chunks: 1,
    perGroup: 1,
    groups: 1,
    outGroup: 0,
  }, [partial.slice, out.slice]);
  device.commands.dispatch(await device.pipelines.get(matmul, { T: 8 }), {
    ...sums,
    ...operandParams("a", { ...left, load: LOAD.scalar }),
    ...operandParams("b", { ...right, load: LOAD.scalar }),
    kInner: k,
    upperOnly: 0,
  }, [a.slice, b.slice, out.slice]);
  const numbers = await out.read();
  for (let i = 0; i < x; i++) {
    for (let j = 0; j < y; j++) {
      const contraction = { length: k, inner: k };
      const twin = productTwin([{ strides: left, data: aData }, { strides: right, data: bData }], [i, j], contraction);
      assertTwin(numbers[i * y + j]!, { value: 10.5 + 2 * twin.value, scale: 10.5 + 2 * twin.scale }, `(${i}, ${j})`);
    }
  }
});

Deno.test({ name: "sum_partials equals its twin in groups of many chunks", ignore: skipGpu }, async () => {
  using device = await openDevice(options);
  const [x, y, inner, chunks, groups] = [5, 66, 33, 43, 4];
  const perGroup = Math.ceil(chunks / groups);
  const data = randomArray(chunks * x * y, 9);
  using partial = GpuArray.from(device, data, "partial");
  using out = GpuArray.from(device, new Float32Array(groups * x * y), "out");
  device.commands.dispatch(await device.pipelines.get(sumPartials), {
    x,
    y,
    inner,
    chunks,
    perGroup,
    groups,
    outBase: 0,
    outGroup: x * y,
    outX: inner,
    outOuterStride: x * inner, // columns in two halves, one behind the other
    outInnerStride: 1,
    accumulate: 0,
  }, [partial.slice, out.slice]);
  const numbers = await out.read();
  for (let index = 0; index < numbers.length; index++) {
    const group = Math.floor(index / (x * y));
    const [half, i, j] = [
      Math.floor(index % (x * y) / (x * inner)),
      Math.floor(index % (x * inner) / inner),
      index % inner,
    ];
    let value = 0, scale = 0;
    for (let s = group * perGroup; s < Math.min((group + 1) * perGroup, chunks); s++) {
      const term = data[(s * x + i) * y + half * inner + j]!;
      value += term;
      scale += Math.abs(term);
    }
    assertTwin(numbers[index]!, { value, scale }, `entry ${index}`);
  }
});
