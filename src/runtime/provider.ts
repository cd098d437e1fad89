/**
 * Which execution provider `auto` means: WebGPU where the machine has a real GPU, otherwise the CPU. A software adapter
 * (Mesa's lavapipe, SwiftShader) is a CPU with detours, and never chosen.
 *
 * @module
 */
import { log } from "../log.ts";
import type { Provider } from "./protocol.ts";

/** What a user may ask for. */
export type ProviderChoice = "auto" | Provider;

/** The provider to try first for a choice. */
export async function resolveProvider(choice: ProviderChoice): Promise<Provider> {
  if (choice !== "auto") return choice;
  return hasGpuDevice() && await hasHardwareAdapter() ? "webgpu" : "cpu";
}

/**
 * Cheap test that spares the adapter request, which loads every Vulkan driver, on machines without a GPU. Only Linux tells
 * by its device files; elsewhere a GPU is the rule.
 */
function hasGpuDevice(): boolean {
  if (Deno.build.os !== "linux") return true;
  return ["/dev/dri", "/dev/nvidia0", "/dev/dxg"].some((path) => {
    try {
      Deno.statSync(path);
      return true;
    } catch {
      return false;
    }
  });
}

async function hasHardwareAdapter(): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) return false;
  log(
    1,
    `runtime: adapter ${adapter.info.vendor} ${adapter.info.description}, fallback ${adapter.info.isFallbackAdapter}`,
  );
  return !adapter.info.isFallbackAdapter;
}
