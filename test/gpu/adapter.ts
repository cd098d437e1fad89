/**
 * Whether tests can reach a WebGPU adapter. A machine without one skips them, loudly; with TUCKERD_REQUIRE_GPU=1, which
 * the project's own CI sets, they fail instead.
 *
 * @module
 */
import { preventDisplayComplaint } from "../../src/machine.ts";
import { log } from "../../src/log.ts";

/** Whether a missing adapter is a failure. */
export const gpuRequired = Deno.env.get("TUCKERD_REQUIRE_GPU") === "1";

preventDisplayComplaint();
const adapter = await navigator.gpu?.requestAdapter();

/** True if GPU tests are to be left out on this machine. */
export const skipGpu = !adapter && !gpuRequired;

if (skipGpu) {
  log(
    0,
    "NO WEBGPU ADAPTER: every GPU test is skipped. Install a Vulkan driver (Debian: mesa-vulkan-drivers libvulkan1).",
  );
}
