/**
 * ONNX Runtime's WebGPU provider on SwiftShader, a software Vulkan driver that comes with Debian's chromium: slow, but the
 * real kernels. Each run is a process of its own.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { print } from "../../src/log.ts";
import type { ProviderResult } from "../support/provider_child.ts";

const driver = "/usr/lib/chromium/vk_swiftshader_icd.json";
const noDriver = "/nonexistent/icd.json";

async function runOn(provider: string, vulkanDriver: string): Promise<ProviderResult> {
  const child = new URL("../support/provider_child.ts", import.meta.url).pathname;
  const { stdout, stderr, code } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", child, provider],
    env: { VK_DRIVER_FILES: vulkanDriver, VK_ICD_FILENAMES: vulkanDriver },
    signal: AbortSignal.timeout(120_000),
  }).output();
  const text = new TextDecoder();
  assertEquals(code, 0, text.decode(stderr));
  return JSON.parse(text.decode(stdout).trim().split("\n").at(-1)!);
}

/** Whether the driver is there; without it the test is skipped aloud, or fails where a GPU is demanded. */
function hasDriver(): boolean {
  try {
    Deno.statSync(driver);
    return true;
  } catch {
    assert(Deno.env.get("TUCKERD_REQUIRE_GPU") !== "1", `TUCKERD_REQUIRE_GPU is set, but ${driver} is missing`);
    print(`SKIPPED: ${driver} is missing (Debian's chromium has it), so ONNX Runtime's WebGPU provider is not tested`);
    return false;
  }
}

Deno.test("webgpu: the provider that is asked for really runs, and gives what the CPU gives", async () => {
  if (!hasDriver()) return;
  const [gpu, cpu] = [await runOn("webgpu", driver), await runOn("cpu", driver)];
  if (!("provider" in gpu && "provider" in cpu)) throw new Error(JSON.stringify([gpu, cpu]));
  assertEquals([gpu.provider, cpu.provider], ["webgpu", "cpu"]);
  assertEquals(cpu.y, [22, 28, 1.75, 1.5]);
  for (const output of ["y", "start", "end"] as const) {
    assertEquals(gpu[output].length, cpu[output].length);
    gpu[output].forEach((value, index) => {
      const difference = Math.abs(value - cpu[output][index]!);
      assert(difference <= 1e-4, `${output}[${index}]: webgpu ${value}, cpu ${cpu[output][index]}`);
    });
  }
  // Other kernels round differently: equal bits everywhere would mean that the CPU ran under another name.
  assert(gpu.start.some((value, index) => value !== cpu.start[index]), "webgpu gave the CPU's very bits");
});

Deno.test("webgpu: asked for by name without a driver, it fails and says what to do", async () => {
  const result = await runOn("webgpu", noDriver);
  if (!("error" in result)) throw new Error(`It ran, on ${result.provider}`);
  assertEquals(result.kind, "failed");
  assert(result.error.includes("--inference cpu"), result.error);
});

Deno.test("webgpu: auto takes no software adapter, and reports the CPU", async () => {
  for (const vulkanDriver of [noDriver, driver]) {
    const result = await runOn("auto", vulkanDriver);
    if (!("provider" in result)) throw new Error(result.error);
    assertEquals(result.provider, "cpu");
  }
});
