/**
 * Opening devices, and what their errors look like.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { gramSmall, type Kernel } from "../../kernels/mod.ts";
import { TuckerdError } from "../../src/errors.ts";
import { GpuArray } from "../../src/gpu/array.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { describe as describeError } from "../../src/gpu/faults.ts";
import { pipelineKey } from "../../src/gpu/pipelines.ts";
import { ProductPlanner } from "../../src/gpu/product.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { skipGpu } from "./adapter.ts";

const open = (): Promise<GpuDevice> => openDevice({ allowFallbackAdapter: true });

function gpuTest(name: string, body: () => Promise<void>): void {
  Deno.test({ name: `GPU device: ${name}`, ignore: skipGpu }, body);
}

/** A kernel that writes one number, with whatever the source says. */
function kernelOf(source: string): Kernel<"value"> {
  return {
    name: "probe",
    source,
    entryPoint: "main",
    bindings: [{ name: "out", access: "read-write" }],
    overrides: {},
    params: ["value"],
    workgroups: () => 1,
  };
}
const PROBE = `struct Params { value: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(1) fn main() { out[0] = f32(params.value); }`;

gpuTest("is described for the report, software as such", async () => {
  using device = await open();
  assert(device.adapter.length > 0);
  assertEquals(device.isFallback, device.adapter.endsWith(", software"));
  assert(device.limits.bindingBytes >= 2 ** 27 && device.limits.bufferBytes >= 2 ** 28, "limits weren't raised");
});

gpuTest("software is refused unless it is allowed", async () => {
  using device = await open();
  if (!device.isFallback) return; // a real adapter is taken either way
  const error = await assertRejects(() => createGpuOps(), TuckerdError);
  assertEquals((error as TuckerdError).kind, "unavailable");
  assert((error as TuckerdError).message.includes(device.adapter));
});

gpuTest("a compile error names kernel, line and source, and isn't remembered", async () => {
  using device = await open();
  const faulty = kernelOf(PROBE.replace("f32(params.value)", "params.value"));
  const first = await assertRejects(() => device.pipelines.get(faulty), TuckerdError) as TuckerdError;
  assert(/kernel probe doesn't compile: line 4/.test(first.message), first.message);
  assert(first.message.includes("out[0] = params.value"), first.message);
  assertEquals(first.fields["line"], 4);
  const good = await device.pipelines.get(kernelOf(PROBE));
  using out = new GpuArray(device, 1, "out");
  device.commands.dispatch(good, { value: 7 }, [out.slice]);
  assertEquals(await out.read(), Float32Array.of(7));
});

gpuTest("an entry point that doesn't exist is one clear error", async () => {
  using device = await open();
  const error = await assertRejects(
    () => device.pipelines.get({ ...kernelOf(PROBE), entryPoint: "absent" }),
    TuckerdError,
  );
  assert(/kernel probe can't be built: .*absent/s.test((error as Error).message), (error as Error).message);
});

gpuTest("pipelines are compiled once per key, and the key names every override", async () => {
  using device = await open();
  assertEquals(device.pipelines.get(gramSmall), device.pipelines.get(gramSmall));
  assertEquals(pipelineKey({ name: "matmul" }, { T: 8 }), "matmul[T=8]");
  assertEquals(pipelineKey({ name: "sum" }, {}), "sum");
});

gpuTest("a buffer beyond the limit is an error at the next await, with its label", async () => {
  using device = await open();
  device.buffers.acquire(device.raw.limits.maxBufferSize + 256, "storage", "tensor [too, large]");
  using array = GpuArray.from(device, Float32Array.of(1), "small");
  const error = await assertRejects(() => array.read(), TuckerdError) as TuckerdError;
  assertEquals(error.kind, "failed");
  assert(error.message.includes("tensor [too, large]"), error.message);
});

gpuTest("a faulty dispatch is an error at the next await, with the kernel's label", async () => {
  using device = await open();
  const pipeline = await device.pipelines.get(kernelOf(PROBE));
  using out = new GpuArray(device, 4, "out");
  device.commands.dispatch(pipeline, { value: 1 }, [{ ...out.slice, offset: 1 }]); // not aligned
  const error = await assertRejects(() => out.read(), TuckerdError) as TuckerdError;
  assert(error.message.includes("probe"), error.message);
  await assertRejects(() => out.read(), TuckerdError); // and stays: nothing after it can be trusted
});

gpuTest("parameters that aren't 32-bit integers are refused at once", async () => {
  using device = await open();
  const pipeline = await device.pipelines.get(kernelOf(PROBE));
  using out = new GpuArray(device, 4, "out");
  for (const value of [-1, 0.5, NaN, 2 ** 32]) {
    const error = assertThrows(() => device.commands.dispatch(pipeline, { value }, [out.slice]), RangeError);
    assert((error as Error).message.includes("value"));
  }
});

gpuTest("a lost device is an error at the next await", async () => {
  using device = await open();
  using array = GpuArray.from(device, Float32Array.of(1), "small");
  device.raw.destroy();
  const error = await assertRejects(() => array.read(), TuckerdError) as TuckerdError;
  assertEquals(error.kind, "failed");
  assert(/lost|destroyed|invalid/i.test(error.message), error.message);
});

gpuTest("out of memory says so, with the label and advice", () => {
  const error = describeError(new GPUOutOfMemoryError("not enough"), "tensor [4,4]");
  assertEquals(error.message.startsWith("GPU out of memory in tensor [4,4]: not enough"), true, error.message);
  assertEquals(error.fields["gpu"], "out of memory");
  return Promise.resolve();
});

gpuTest("buffers are used again, and none is left in use", async () => {
  using device = await open();
  const planner = await ProductPlanner.create(device);
  for (let round = 0; round < 3; round++) {
    using a = GpuArray.from(device, new Float32Array(4096), "a");
    using out = new GpuArray(device, 64 * 64, "out");
    const operand = {
      slice: a.slice,
      unit: 0,
      base: 0,
      count: 64,
      inner: 64,
      outerStride: 0,
      innerStride: 64,
      kOuterStride: 0,
      kInnerStride: 1,
    };
    const target = { slice: out.slice, base: 0, xStride: 64, outerStride: 0, innerStride: 1 };
    planner.run({ a: operand, b: operand, k: { length: 64, inner: 64 } }, target);
    await out.read();
    assertEquals(device.buffers.inUse, 2, "only a and out are held");
  }
  assertEquals(device.buffers.inUse, 0);
  assertEquals(device.buffers.bytes, 3 * 4096 * 4, "a, out and one readback buffer, whatever the number of rounds");
});

gpuTest("a released buffer can't be released again, an array not used after its disposal", async () => {
  using device = await open();
  const buffer = device.buffers.acquire(16, "storage", "once");
  device.buffers.release(buffer);
  assertThrows(() => device.buffers.release(buffer), TypeError, "once");
  const array = new GpuArray(device, 4, "gone");
  array[Symbol.dispose]();
  array[Symbol.dispose](); // harmless
  await assertRejects(() => array.read(), TypeError, "disposal");
});

gpuTest("a read sees the numbers as they are at the call", async () => {
  using device = await open();
  const array = GpuArray.from(device, Float32Array.of(1, 2, 3, 4), "first");
  const reading = array.read();
  array[Symbol.dispose]();
  using next = GpuArray.from(device, Float32Array.of(5, 6, 7, 8), "second"); // takes the same buffer
  assertEquals(await reading, Float32Array.of(1, 2, 3, 4));
  assertEquals(await next.read(), Float32Array.of(5, 6, 7, 8));
});

gpuTest("what was recorded runs before an upload into a buffer that it still reads", async () => {
  using device = await open();
  const source = GpuArray.from(device, Float32Array.of(1, 2, 3, 4), "source");
  using copy = new GpuArray(device, 4, "copy");
  source.copyTo(copy, { start: 0, targetStart: 0, length: 4 });
  source[Symbol.dispose]();
  using _next = GpuArray.from(device, Float32Array.of(5, 6, 7, 8), "takes the source's buffer");
  assertEquals(await copy.read(), Float32Array.of(1, 2, 3, 4));
});

gpuTest("reads under way at the same time don't disturb each other", async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true });
  const grams = await Promise.all(Array.from({ length: 8 }, async (_, index) => {
    using tensor = ops.tensor(new Float32Array(60).fill(index), [6, 10]);
    return await ops.gram(tensor, 0);
  }));
  grams.forEach((gram, index) => assertEquals(gram, new Float64Array(36).fill(10 * index * index)));
});

Deno.test({
  name: "GPU device: without an adapter the error says what to do",
  ignore: Deno.build.os !== "linux", // where the Vulkan loader can be told to find no driver
}, async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--unstable-webgpu", new URL("open_device.ts", import.meta.url).pathname],
    env: { DENO_WEBGPU_BACKEND: "vulkan", VK_DRIVER_FILES: "/nonexistent" }, // OpenGL would do otherwise
    stderr: "null",
  }).output();
  const answer = new TextDecoder().decode(stdout);
  assert(answer.startsWith("unavailable: no WebGPU adapter"), answer);
  assert(answer.includes("--device cpu"), answer);
});

gpuTest("every read sees the newest numbers, from a buffer that was mapped before too", async () => {
  using device = await open();
  for (let value = 0; value < 20; value++) {
    using array = GpuArray.from(device, Float32Array.of(value, -value), "changing");
    assertEquals(await array.read(), Float32Array.of(value, -value));
  }
});

gpuTest("reads let the event loop run", async () => {
  using device = await open();
  using array = GpuArray.from(device, Float32Array.of(1), "small");
  await array.read();
  let ran = false;
  setTimeout(() => ran = true, 0);
  const until = performance.now() + 5000;
  while (!ran && performance.now() < until) await array.read();
  assert(ran, "5 s of reads kept a timer waiting");
});
