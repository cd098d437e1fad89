import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { resolveProvider } from "../../src/runtime/provider.ts";
import { RunQueue } from "../../src/runtime/run_queue.ts";
import { availableThreads } from "../../src/machine.ts";
import { sentence } from "../../src/runtime/ort_errors.ts";

function threads(hardwareConcurrency: number, files: Record<string, string>): number {
  return availableThreads({ hardwareConcurrency, readText: (path) => files[path] });
}

Deno.test("threads: the smaller of the cores and the control group's quota, at least one", () => {
  const version2 = "/sys/fs/cgroup/cpu.max";
  assertEquals(threads(16, {}), 16);
  assertEquals(threads(16, { [version2]: "max 100000\n" }), 16);
  assertEquals(threads(16, { [version2]: "400000 100000\n" }), 4);
  assertEquals(threads(2, { [version2]: "400000 100000\n" }), 2);
  assertEquals(threads(16, { [version2]: "250000 100000\n" }), 2);
  assertEquals(threads(16, { [version2]: "50000 100000\n" }), 1);
  assertEquals(threads(16, { [version2]: "garbage" }), 16);
  const quota = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", period = "/sys/fs/cgroup/cpu/cpu.cfs_period_us";
  assertEquals(threads(16, { [quota]: "-1\n", [period]: "100000\n" }), 16);
  assertEquals(threads(16, { [quota]: "300000\n", [period]: "100000\n" }), 3);
});

Deno.test("threads: this machine gives at least one and at most its cores", () => {
  const threads = availableThreads();
  assert(threads >= 1 && threads <= navigator.hardwareConcurrency);
});

Deno.test("run queue: a failed run gives its place free, and a limit must be a positive integer", async () => {
  const queue = new RunQueue(1);
  await assertRejects(() => queue.add(() => Promise.reject(new RangeError("planted"))), RangeError, "planted");
  assertEquals(queue.pending, 0);
  const held = Promise.withResolvers<number>();
  const run = queue.add(() => held.promise);
  assertEquals((await assertRejects(() => queue.add(() => Promise.resolve(1)), TuckerdError)).kind, "overloaded");
  held.resolve(7);
  assertEquals(await run, 7);
  assertEquals(await queue.add(() => Promise.resolve(8)), 8);
  for (const limit of [0, -1, 1.5, NaN]) assertThrows(() => new RunQueue(limit), RangeError);
});

Deno.test("provider: what is asked for by name is taken as said", async () => {
  assertEquals(await resolveProvider("cpu"), "cpu");
  assertEquals(await resolveProvider("webgpu"), "webgpu");
});

Deno.test("errors: ONNX Runtime's source locations and signatures are left out", () => {
  const located = "/onnxruntime_src/onnxruntime/core/providers/webgpu/webgpu_context.cc:136 " +
    "onnxruntime::webgpu::WebGpuContext::Initialize(const onnxruntime::webgpu::WebGpuContextConfig&)::<lambda()> " +
    "adapter_result.status was false. No supported adapters\n";
  assertEquals(sentence(new Error(located)), "adapter_result.status was false. No supported adapters");
  assertEquals(
    sentence(new Error("Load model from m.onnx failed:Protobuf parsing failed.")),
    "Load model from m.onnx failed:Protobuf parsing failed.",
  );
});
