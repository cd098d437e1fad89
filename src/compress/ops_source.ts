/**
 * Which tensor operations decompose: WebGPU or CPU, as the user allows, and what really ran.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { hasGpuDevice } from "../machine.ts";
import { createCpuOps } from "../tucker/mod.ts";
import type { TuckerOps } from "../tucker/ops.ts";
import type { Device } from "./layer_task.ts";

/** What computed a result, for the report. */
export interface UsedOps {
  readonly backend: "webgpu" | "cpu";
  readonly adapter: string;
}

/**
 * Operations for a run of tasks. With device `auto` a real GPU is used where there is one, and work that fails on it is done
 * on the CPU instead; the adapter text then says so. A software adapter isn't a GPU: measured, it loses to the CPU.
 */
export class OpsSource implements Disposable {
  #device: Device | undefined;
  #ops: TuckerOps | undefined;
  /** Why `auto` runs on the CPU, where a GPU failed. */
  #fallback = "";

  /** Opens the backend that a device choice means; nothing is done if it is open already. */
  async open(device: Device): Promise<void> {
    if (this.#device === device && this.#ops !== undefined) return;
    this.#close();
    this.#device = device;
    this.#fallback = "";
    this.#ops = device === "cpu" ? await createCpuOps() : await this.#openGpu(device);
  }

  /**
   * Runs work on the operations.
   *
   * @throws TuckerdError what the work threw, unless the device is `auto` and the GPU was at fault
   */
  async use<T>(work: (ops: TuckerOps) => Promise<T>): Promise<{ readonly value: T; readonly ops: UsedOps }> {
    const ops = this.#ops!;
    try {
      const value = await work(ops);
      return { value, ops: { backend: ops.backend, adapter: `${ops.adapter}${this.#fallback}` } };
    } catch (error) {
      const gpuFailed = ops.backend === "webgpu" && error instanceof TuckerdError && error.kind === "failed";
      if (!gpuFailed || this.#device !== "auto") throw error;
      log(0, `tuckerd: WebGPU (${ops.adapter}) failed, the CPU takes over: ${error.message}`);
      ops[Symbol.dispose]();
      this.#ops = await createCpuOps();
      this.#fallback = `, since WebGPU (${ops.adapter}) failed: ${error.message}`;
      return await this.use(work);
    }
  }

  async #openGpu(device: Device): Promise<TuckerOps> {
    if (device === "auto" && !hasGpuDevice()) return await createCpuOps();
    const { createGpuOps } = await import("../tucker/gpu_ops.ts");
    try {
      return await createGpuOps({ allowFallbackAdapter: device === "webgpu" });
    } catch (error) {
      if (device === "webgpu" || !(error instanceof TuckerdError) || error.kind !== "unavailable") throw error;
      log(1, `no GPU: ${error.message}`);
      return await createCpuOps();
    }
  }

  #close(): void {
    this.#ops?.[Symbol.dispose]();
    this.#ops = undefined;
  }

  /** Frees the device. */
  [Symbol.dispose](): void {
    this.#close();
  }
}
