/**
 * Work beyond the device's limits is cut, never refused: limits far below the adapter's own make small tensors "too big".
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { openDevice, requiredLimits } from "../../src/gpu/device.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import type { TuckerOps } from "../../src/tucker/ops.ts";
import { randomArray } from "../tucker/random.ts";
import { skipGpu } from "./adapter.ts";
import { assertTwin, dot } from "./twin.ts";

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

async function checkModes(ops: TuckerOps, shape: readonly number[], columns: number): Promise<void> {
  const data = randomArray(size(shape), 1);
  using tensor = ops.tensor(data, shape);
  for (const [mode, length] of shape.entries()) {
    const inner = size(shape.slice(mode + 1));
    const at = (o: number, k: number, i: number): number => data[(o * length + k) * inner + i]!;
    const outer = size(shape.slice(0, mode));
    const factor = randomArray(length * columns, mode);
    using matrix = ops.tensor(factor, [length, columns]);
    using product = ops.modeProduct(tensor, mode, matrix);
    const numbers = await ops.read(product);
    for (let index = 0; index < numbers.length; index++) {
      const [i, j, o] = [index % inner, Math.floor(index / inner) % columns, Math.floor(index / inner / columns)];
      const twin = dot(length, (k) => [at(o, k, i), factor[k * columns + j]!]);
      assertTwin(numbers[index]!, twin, `[${shape}] ×${mode}, entry ${index}`);
    }
    if (length > 300) continue; // the twin would take seconds
    const gram = await ops.gram(tensor, mode);
    for (let j = 0; j < length; j++) {
      for (let k = 0; k < length; k++) {
        const pair = (t: number) => {
          const [o, i] = [Math.floor(t / inner), t % inner];
          return [at(o, j, i), at(o, k, i)] as const;
        };
        assertTwin(gram[j * length + k]!, dot(outer * inner, pair), `Gram of [${shape}] in mode ${mode}, (${j}, ${k})`);
        assertEquals(gram[j * length + k], gram[k * length + j]);
      }
    }
  }
}

async function checkMatmul(ops: TuckerOps, [m, k, n]: readonly [number, number, number]): Promise<void> {
  const [left, right] = [randomArray(m * k, 3), randomArray(k * n, 4)];
  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      using a = ops.tensor(left, transposeA ? [k, m] : [m, k]);
      using b = ops.tensor(right, transposeB ? [n, k] : [k, n]);
      using product = ops.matmul(a, b, { transposeA, transposeB });
      const numbers = await ops.read(product);
      for (let index = 0; index < numbers.length; index++) {
        const [i, j] = [Math.floor(index / n), index % n];
        const twin = dot(
          k,
          (p) => [left[transposeA ? p * m + i : i * k + p]!, right[transposeB ? j * k + p : p * n + j]!],
        );
        assertTwin(numbers[index]!, twin, `${m}×${k}×${n} ${transposeA} ${transposeB}, entry ${index}`);
      }
    }
  }
}

// bindings of 1 KiB hold 192 numbers at any alignment; buffers of 1.25 KiB are no multiple of them
const small = { bindingBytes: 1024, bufferBytes: 1280, workgroupsPerDimension: 3 };
// whole buffers fit a binding: only the buffers are cut
const buffers = { bufferBytes: 2048 };
// whole tensors fit a buffer: only the bindings are cut
const bindings = { bindingBytes: 2048 };

for (const [name, limits] of Object.entries({ small, buffers, bindings })) {
  Deno.test({ name: `limits "${name}": every operation equals its twin`, ignore: skipGpu }, async () => {
    using ops = await createGpuOps({ allowFallbackAdapter: true, limits });
    await checkModes(ops, [6, 4, 5, 7], 3);
    await checkModes(ops, [3, 4, 300], 2); // a row beyond a binding
    await checkModes(ops, [20, 30], 9);
    await checkModes(ops, [2, 300], 200); // the matrix and the result's rows as well
    await checkMatmul(ops, [40, 30, 50]);
    await checkMatmul(ops, [2, 500, 3]);
    await checkMatmul(ops, [3, 2, 700]);
  });
}

Deno.test({ name: "sums cut for a large device equal their twins", ignore: skipGpu }, async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, limits: { parallelWorkgroups: 512 } });
  await checkModes(ops, [3, 70, 600], 20);
  await checkModes(ops, [2, 9, 4100], 3);
  await checkMatmul(ops, [130, 3000, 12]);
  await checkMatmul(ops, [600, 400, 5]); // tall
  await checkMatmul(ops, [5, 900, 300]); // skinny
});

Deno.test({ name: "long sums that aren't cut for parallelism are cut for accuracy", ignore: skipGpu }, async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, limits: { parallelWorkgroups: 1 } });
  await checkModes(ops, [2, 9, 3000], 3);
  await checkMatmul(ops, [70, 2500, 12]);
});

Deno.test({ name: "a grid of more than 65535 workgroups runs whole", ignore: skipGpu }, async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true });
  const length = 256 * 65536 + 100;
  const data = new Float32Array(length);
  for (let i = 0; i < length; i++) data[i] = i % 1000;
  using tensor = ops.tensor(data, [1, length]);
  using matrix = ops.tensor(Float32Array.of(3), [1, 1]);
  using product = ops.modeProduct(tensor, 0, matrix);
  const numbers = await ops.read(product);
  assert(numbers.every((value, index) => value === 3 * (index % 1000)), "numbers are missing");
});

Deno.test({ name: "sizes of zero give empty results and zero sums", ignore: skipGpu }, async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true });
  using none = ops.tensor(new Float32Array(0), [3, 0, 2]);
  assertEquals(await ops.read(none), new Float32Array(0));
  assertEquals(await ops.gram(none, 0), new Float64Array(9));
  assertEquals(await ops.gram(none, 1), new Float64Array(0));
  using matrix = ops.tensor(new Float32Array(0), [0, 4]);
  using product = ops.modeProduct(none, 1, matrix);
  assertEquals(product.shape, [3, 4, 2]);
  assertEquals(await ops.read(product), new Float32Array(24));
  using outer = ops.matmul(matrix, matrix, { transposeA: true });
  assertEquals(await ops.read(outer), new Float32Array(16));
});

Deno.test("a device is asked for limits that Deno takes, whatever wgpu says of an adapter", () => {
  const nvidia = { maxStorageBufferBindingSize: 2 ** 31 - 1, maxBufferSize: 2 ** 64 }; // u64::MAX, as a number
  assertEquals(requiredLimits(nvidia), { maxStorageBufferBindingSize: 2 ** 31 - 1, maxBufferSize: 2 ** 30 });
  const mesa = { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 29 };
  assertEquals(requiredLimits(mesa), mesa);
});

Deno.test({ name: "an adapter without a limit to its buffers gives a device", ignore: skipGpu }, async () => {
  const { requestAdapter } = navigator.gpu;
  const asked: Record<string, number>[] = [];
  navigator.gpu.requestAdapter = async (options): Promise<GPUAdapter> => {
    const adapter = (await requestAdapter.call(navigator.gpu, options))!;
    const { info, limits } = adapter;
    const { maxStorageBufferBindingSize, maxComputeWorkgroupsPerDimension } = limits;
    const requestDevice = (descriptor?: GPUDeviceDescriptor): Promise<GPUDevice> => {
      asked.push(descriptor!.requiredLimits as Record<string, number>);
      return adapter.requestDevice(descriptor);
    };
    const unlimited = { maxBufferSize: 2 ** 64, maxStorageBufferBindingSize, maxComputeWorkgroupsPerDimension };
    return { info, limits: unlimited, requestDevice } as unknown as GPUAdapter;
  };
  try {
    using device = await openDevice({ allowFallbackAdapter: true });
    assertEquals(device.limits.bufferBytes, 2 ** 30);
    assertEquals(asked.map(({ maxBufferSize }) => maxBufferSize), [2 ** 30]);
  } finally {
    navigator.gpu.requestAdapter = requestAdapter;
  }
});
