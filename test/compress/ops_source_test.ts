/**
 * Which operations decompose when a GPU fails: what is thrown, what goes on, what the report says.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { type OpsMakers, OpsSource } from "../../src/compress/ops_source.ts";
import { tuckerDevice } from "../../src/compress/report.ts";
import { TuckerdError } from "../../src/errors.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { describe } from "../../src/gpu/faults.ts";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { gpuOpsOn } from "../../src/tucker/gpu_ops.ts";
import type { TuckerOps } from "../../src/tucker/ops.ts";
import { skipGpu } from "../gpu/adapter.ts";
import { options, randomWeights } from "../tucker/layers.ts";

/** Operations that do nothing, and remember whether they were disposed. */
class IdleGpu {
  readonly backend = "webgpu";
  disposed = false;

  constructor(readonly adapter: string) {}

  [Symbol.dispose](): void {
    this.disposed = true;
  }
}

const failure = (text: string): TuckerdError => new TuckerdError("failed", text);

/** Rows and columns of the matrices that the work is said to be about. */
const SIZES = [48, 256] as const;

/** A trial that every GPU wins. */
const gpuWins: OpsMakers["trial"] = ({ backend }) => Promise.resolve(backend === "webgpu" ? 0.001 : 0.002);

/** A source on GPUs named gpu 1, gpu 2…, all of which the test sees. */
function sourceOf(given: Partial<OpsMakers> = {}): { source: OpsSource; gpus: IdleGpu[]; allowed: boolean[] } {
  const gpus: IdleGpu[] = [], allowed: boolean[] = [];
  const source = new OpsSource({
    gpu: ({ allowFallbackAdapter }) => {
      allowed.push(allowFallbackAdapter);
      gpus.push(new IdleGpu(`gpu ${gpus.length + 1}`));
      return Promise.resolve(gpus.at(-1) as unknown as TuckerOps);
    },
    cpu: createCpuOps,
    hasGpu: () => true,
    trial: gpuWins,
    ...given,
  });
  return { source, gpus, allowed };
}

/** Work that fails on a GPU only. */
const onlyOnCpu = (ops: TuckerOps): Promise<string> =>
  ops.backend === "cpu" ? Promise.resolve("done") : Promise.reject(failure("GPU out of memory in tensor [4,4]"));

Deno.test("auto: work that fails on the GPU is done on the CPU, and the adapter's text says why", async () => {
  const { source, gpus, allowed } = sourceOf();
  using _source = source;
  await source.open("auto", SIZES);
  assertEquals(await source.use((ops) => Promise.resolve(ops.adapter)), {
    value: "gpu 1",
    ops: { backend: "webgpu", adapter: "gpu 1" },
  });
  for (let round = 0; round < 2; round++) { // and it stays so
    const { value, ops } = await source.use(onlyOnCpu);
    assertEquals([value, ops.backend], ["done", "cpu"]);
    assert(ops.adapter.endsWith(", since WebGPU (gpu 1) failed: GPU out of memory in tensor [4,4]"), ops.adapter);
  }
  assertEquals([gpus.length, gpus[0]!.disposed, allowed], [1, true, [false]]);
});

Deno.test("webgpu: the error is thrown, and the next work opens a new device", async () => {
  const { source, gpus, allowed } = sourceOf();
  await source.open("webgpu", SIZES);
  await assertRejects(() => source.use(onlyOnCpu), TuckerdError, "tensor [4,4]");
  assertEquals(gpus.map(({ disposed }) => disposed), [true]);
  await source.open("webgpu", SIZES);
  const { ops } = await source.use(() => Promise.resolve());
  assertEquals(ops, { backend: "webgpu", adapter: "gpu 2" });
  assertEquals(allowed, [true, true], "a software adapter will do where WebGPU was asked for");
  source[Symbol.dispose]();
  await Promise.resolve();
  assertEquals(gpus.map(({ disposed }) => disposed), [true, true]);
});

Deno.test("errors that aren't the GPU's are thrown as they are", async () => {
  const { source, gpus } = sourceOf();
  using _source = source;
  await source.open("auto", SIZES);
  for (
    const error of [new TuckerdError("invalid", "ranks"), new TuckerdError("cancelled", "stop"), new RangeError("r")]
  ) {
    assertEquals(await assertRejects(() => source.use(() => Promise.reject(error))), error);
  }
  assertEquals([gpus.length, gpus[0]!.disposed], [1, false]);
});

Deno.test("two pieces of work on a GPU that fails: the device is freed when both have ended, both end on the CPU", async () => {
  const { source, gpus } = sourceOf();
  using _source = source;
  await source.open("auto", SIZES);
  const second = Promise.withResolvers<string>();
  const late = source.use((ops) => ops.backend === "cpu" ? Promise.resolve("late") : second.promise);
  const early = await source.use(onlyOnCpu);
  assertEquals([early.ops.backend, gpus[0]!.disposed], ["cpu", false]);
  second.reject(failure("GPU device lost in matmul[T=8]"));
  const { value, ops } = await late;
  assertEquals([value, ops.backend, gpus[0]!.disposed, gpus.length], ["late", "cpu", true, 1]);
  assert(ops.adapter.includes("tensor [4,4]"), "the first error is the one that counts");
});

Deno.test("a GPU that can't be opened: auto says so and goes on, webgpu throws, and another attempt is made", async () => {
  let attempts = 0;
  const gpu = (): Promise<TuckerOps> => {
    attempts++;
    return Promise.reject(failure("kernel matmul[T=16] can't be built: no reason"));
  };
  const { source } = sourceOf({ gpu });
  using _source = source;
  await source.open("auto", SIZES);
  const { ops } = await source.use(() => Promise.resolve());
  assertEquals(ops.backend, "cpu");
  assert(ops.adapter.endsWith(", since WebGPU failed: kernel matmul[T=16] can't be built: no reason"), ops.adapter);
  await assertRejects(() => source.open("webgpu", SIZES), TuckerdError, "matmul[T=16]");
  await assertRejects(() => source.open("webgpu", SIZES), TuckerdError, "matmul[T=16]");
  assertEquals(attempts, 3);
});

Deno.test("auto without a GPU is the CPU, plainly; cpu never looks for one", async () => {
  const unavailable = () => Promise.reject(new TuckerdError("unavailable", "software"));
  const cpu = (await createCpuOps()).adapter;
  for (const makers of [{ hasGpu: () => false }, { gpu: unavailable }]) {
    using source = sourceOf(makers).source;
    await source.open("auto", SIZES);
    const { ops } = await source.use(() => Promise.resolve());
    assertEquals(ops, { backend: "cpu", adapter: cpu });
  }
  const { source, gpus } = sourceOf();
  await source.open("cpu", SIZES);
  assertEquals(gpus.length, 0);
});

Deno.test("auto: a GPU that loses the trial isn't used, and the adapter's text gives both times", async () => {
  const asked: unknown[] = [];
  const trial: OpsMakers["trial"] = ({ backend }, ...sizes) => {
    asked.push([backend, ...sizes]);
    return Promise.resolve(backend === "webgpu" ? 0.0125 : 0.005);
  };
  const { source, gpus } = sourceOf({ trial });
  using _source = source;
  for (let round = 0; round < 2; round++) { // the second finds it decided
    await source.open("auto", SIZES);
    const { ops } = await source.use(() => Promise.resolve());
    assertEquals(ops.backend, "cpu");
    assert(
      ops.adapter.endsWith(", since a trial product took 13 ms on WebGPU (gpu 1) and 5.0 ms on the CPU"),
      ops.adapter,
    );
  }
  assertEquals([gpus.length, gpus[0]!.disposed], [1, true]);
  assertEquals(asked, [["webgpu", ...SIZES], ["cpu", ...SIZES]]);
});

Deno.test("auto: what loses the trial is freed, what wins it is kept", async () => {
  for (const [onGpu, kept] of [[1, "webgpu"], [3, "cpu"]] as const) {
    const cpu = new IdleGpu("cpu");
    const { source, gpus } = sourceOf({
      cpu: () => Promise.resolve(Object.assign(cpu, { backend: "cpu" }) as unknown as TuckerOps),
      trial: ({ backend }) => Promise.resolve(backend === "webgpu" ? onGpu : 2),
    });
    await source.open("auto", SIZES);
    assertEquals([gpus[0]!.disposed, cpu.disposed], [kept === "cpu", kept === "webgpu"]);
    assertEquals((await source.use(() => Promise.resolve())).ops.backend, kept);
    source[Symbol.dispose]();
  }
});

Deno.test("a GPU that fails in its trial: auto says so and goes on", async () => {
  const { source, gpus } = sourceOf({
    trial: ({ backend }) => backend === "cpu" ? Promise.resolve(1) : Promise.reject(failure("GPU device lost")),
  });
  using _source = source;
  await source.open("auto", SIZES);
  const { ops } = await source.use(() => Promise.resolve());
  assert(ops.adapter.endsWith(", since WebGPU failed: GPU device lost"), ops.adapter);
  assertEquals([ops.backend, gpus[0]!.disposed], ["cpu", true]);
});

Deno.test("no trial where the user chose", async () => {
  const trial = (): Promise<number> => Promise.reject(new Error("a trial"));
  for (const device of ["webgpu", "cpu"] as const) {
    using source = sourceOf({ trial }).source;
    await source.open(device, SIZES);
    assertEquals((await source.use(() => Promise.resolve())).ops.backend, device);
  }
});

Deno.test("the report names every device that decomposed", () => {
  const on = (backend: "webgpu" | "cpu", adapter: string) => ({ stored: { backend, adapter } });
  const gpu = on("webgpu", "GPU");
  assertEquals(tuckerDevice({ layers: [gpu, gpu], matrices: [gpu] }), { backend: "webgpu", adapter: "GPU" });
  assertEquals(
    tuckerDevice({ layers: [gpu, on("cpu", "CPU, since GPU failed")], matrices: [on("cpu", "CPU, since GPU failed")] }),
    {
      backend: "cpu",
      adapter: "1 of 3 on GPU; 2 of 3 on CPU, since GPU failed",
    },
  );
  assertEquals(tuckerDevice({ layers: [], matrices: [] }).backend, "none");
});

/** Makes a device fail at the n-th Gram matrix that is asked of it. */
function failingAt(ops: TuckerOps, count: number, fault: () => void): TuckerOps {
  let grams = 0;
  return {
    backend: ops.backend,
    adapter: ops.adapter,
    tensor: (...args) => ops.tensor(...args),
    adopt: (...args) => ops.adopt(...args),
    read: (...args) => ops.read(...args),
    reshape: (...args) => ops.reshape(...args),
    modeProduct: (...args) => ops.modeProduct(...args),
    matmul: (...args) => ops.matmul(...args),
    gram: (...args) => {
      if (++grams === count) fault();
      return ops.gram(...args);
    },
    [Symbol.dispose]: () => ops[Symbol.dispose](),
  };
}

const FAULTS: Record<string, { readonly fault: (device: GpuDevice) => void; readonly text: RegExp }> = {
  "lost device": { fault: (device) => device.raw.destroy(), text: /GPU .*in (matmul|copy|gram_small|upload)/ },
  "buffer that doesn't fit": {
    fault: (device) =>
      void device.buffers.acquire(device.raw.limits.maxBufferSize + 256, "storage", "mode product [9]"),
    text: /GPU .* in mode product \[9\] \(\d+ bytes\)/,
  },
  "out of memory": {
    fault: (device) => device.faults.report(describe(new GPUOutOfMemoryError("no memory"), "tensor [64,4,4,16]")),
    text: /GPU out of memory in tensor \[64,4,4,16\]: no memory.*--device cpu/,
  },
};

for (const [name, { fault, text }] of Object.entries(FAULTS)) {
  Deno.test({ name: `a decomposition under way meets: ${name}`, ignore: skipGpu }, async () => {
    const weights = randomWeights({ hiddenSize: 64, heads: 4, headSize: 16 }, 21);
    const given = options({ ranks: [16, 4, 2], sweeps: 2 });
    const gpu = async (): Promise<TuckerOps> => {
      const device = await openDevice({ allowFallbackAdapter: true });
      return failingAt(await gpuOpsOn(device), 4, () => fault(device));
    };
    using source = new OpsSource({ gpu, cpu: createCpuOps, hasGpu: () => true, trial: gpuWins });
    await source.open("auto", SIZES);
    const { value, ops } = await source.use((ops) => decomposeLayer(weights, given, ops));
    assertEquals(ops.backend, "cpu");
    assert(text.test(ops.adapter), ops.adapter);
    using cpu = await createCpuOps();
    assertEquals(value.factors, (await decomposeLayer(weights, given, cpu)).factors, "nothing of the GPU's is left");
    await source.open("webgpu", SIZES);
    const error = await assertRejects(() => source.use((ops) => decomposeLayer(weights, given, ops)), TuckerdError);
    assert(text.test((error as TuckerdError).message), (error as TuckerdError).message);
  });
}
