/**
 * Which execution provider `auto` means: WebGPU where the machine has a real GPU, otherwise the CPU. A software adapter
 * (Mesa's lavapipe, SwiftShader) is a CPU with detours, and never chosen.
 *
 * @module
 */
import { log } from "../log.ts";
import { hasGpuDevice, preventDisplayComplaint } from "../machine.ts";
import type { Provider } from "./protocol.ts";

/** What a user may ask for. */
export type ProviderChoice = "auto" | Provider;

/** The provider to try first for a choice. */
export async function resolveProvider(choice: ProviderChoice): Promise<Provider> {
  if (choice !== "auto") return choice;
  return hasGpuDevice() && await hasHardwareAdapter() ? "webgpu" : "cpu";
}

async function hasHardwareAdapter(): Promise<boolean> {
  preventDisplayComplaint();
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) return false;
  log(
    1,
    `runtime: adapter ${adapter.info.vendor} ${adapter.info.description}, fallback ${adapter.info.isFallbackAdapter}`,
  );
  return !adapter.info.isFallbackAdapter;
}
