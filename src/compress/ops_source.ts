/**
 * Which tensor operations decompose: WebGPU or CPU, as the user allows, and what really ran.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { hasGpuDevice } from "../machine.ts";
import { createCpuOps, trialSeconds } from "../tucker/mod.ts";
import type { TuckerOps } from "../tucker/ops.ts";
import type { Device } from "./layer_task.ts";

/** What computed a result, for the report. */
export interface UsedOps {
  readonly backend: "webgpu" | "cpu";
  readonly adapter: string;
}

/** What makes operations; tests give others. */
export interface OpsMakers {
  /** Operations on a GPU; on a software adapter only if that is allowed. */
  readonly gpu: (options: { readonly allowFallbackAdapter: boolean }) => Promise<TuckerOps>;
  readonly cpu: () => Promise<TuckerOps>;
  /** Whether it is worth looking for a GPU. */
  readonly hasGpu: () => boolean;
  /** Seconds that operations take for a step of a decomposition with a matrix of these sizes. */
  readonly trial: (ops: TuckerOps, rows: number, columns: number) => Promise<number>;
}

const MAKERS: OpsMakers = {
  gpu: async (options) => (await import("../tucker/gpu_ops.ts")).createGpuOps(options),
  cpu: createCpuOps,
  hasGpu: hasGpuDevice,
  trial: trialSeconds,
};

/** Open operations, and how many pieces of work are under way on them. */
interface Opened {
  readonly ops: TuckerOps;
  /** Why they are the CPU's, where a GPU failed or lost. */
  readonly fallback: string;
  users: number;
  discarded: boolean;
}

/**
 * Operations for a run of tasks. With device `auto` a real GPU is used where there is one and it wins a trial against the CPU, and work
 * that fails on it is done on the CPU instead; the adapter text then says so. A software adapter isn't a GPU: measured, it loses to the
 * CPU. After an error a GPU isn't trusted any more: with device `webgpu` the next work opens a new one.
 */
export class OpsSource implements Disposable {
  readonly #makers: OpsMakers;
  #device: Device | undefined;
  /** Of the matrices that the first work is about. */
  #sizes: readonly [number, number] = [0, 0];
  #opened: Promise<Opened> | undefined;

  constructor(makers: OpsMakers = MAKERS) {
    this.#makers = makers;
  }

  /**
   * Opens the backend that a device choice means; nothing is done if it is open already.
   *
   * @param sizes rows and columns of a matrix like those that will be decomposed, for the trial
   * @throws TuckerdError what opening it threw; with device `auto` a GPU that can't be opened is none
   */
  async open(device: Device, sizes: readonly [rows: number, columns: number]): Promise<void> {
    if (this.#device !== device) this.#discard(this.#opened);
    this.#device = device;
    this.#sizes = sizes;
    await this.#current();
  }

  /**
   * Runs work on the operations. Two pieces of work may be under way at once.
   *
   * @throws TuckerdError what the work threw, unless the device is `auto` and the GPU was at fault
   */
  async use<T>(work: (ops: TuckerOps) => Promise<T>): Promise<{ readonly value: T; readonly ops: UsedOps }> {
    const current = this.#current();
    const opened = await current;
    const { fallback } = opened;
    const ops = opened.ops.view?.() ?? opened.ops;
    opened.users++;
    try {
      const value = await work(ops);
      return { value, ops: { backend: ops.backend, adapter: `${ops.adapter}${fallback}` } };
    } catch (error) {
      if (!(ops.backend === "webgpu" && error instanceof TuckerdError && error.kind === "failed")) throw error;
      if (this.#opened === current) this.#replace(opened.ops, error);
      if (this.#device !== "auto") throw error;
    } finally {
      opened.users--;
      closeIfUnused(opened);
    }
    return await this.use(work);
  }

  /** Gives up a GPU after an error: `auto` goes on with the CPU. */
  #replace({ adapter }: TuckerOps, error: TuckerdError): void {
    this.#discard(this.#opened);
    if (this.#device !== "auto") return;
    log(0, `tuckerd: WebGPU (${adapter}) failed, the CPU takes over: ${error.message}`);
    this.#opened = this.#openCpu(`, since WebGPU (${adapter}) failed: ${error.message}`);
  }

  #current(): Promise<Opened> {
    if (this.#opened !== undefined) return this.#opened;
    const opening = this.#openDevice(this.#device ?? "auto");
    this.#opened = opening;
    opening.catch(() => {
      if (this.#opened === opening) this.#opened = undefined; // the next use tries again
    });
    return opening;
  }

  async #openDevice(device: Device): Promise<Opened> {
    if (device === "cpu" || (device === "auto" && !this.#makers.hasGpu())) return await this.#openCpu("");
    try {
      const gpu = await this.#makers.gpu({ allowFallbackAdapter: device === "webgpu" });
      return device === "auto" ? await this.#faster(gpu) : opened(gpu, "");
    } catch (error) {
      if (device === "webgpu" || !(error instanceof TuckerdError)) throw error;
      if (error.kind === "unavailable") {
        log(1, `no GPU: ${error.message}`);
        return await this.#openCpu("");
      }
      log(0, `tuckerd: WebGPU can't be used, the CPU takes over: ${error.message}`);
      return await this.#openCpu(`, since WebGPU failed: ${error.message}`);
    }
  }

  /** A GPU if it is faster than the CPU, which is measured: not every adapter is. */
  async #faster(gpu: TuckerOps): Promise<Opened> {
    const { cpu: makeCpu, trial } = this.#makers;
    const cpu = await makeCpu();
    let faster: TuckerOps | undefined;
    try {
      const onGpu = await trial(gpu, ...this.#sizes);
      const onCpu = await trial(cpu, ...this.#sizes);
      const times = `a trial product took ${milliseconds(onGpu)} on WebGPU (${gpu.adapter}) and ${
        milliseconds(onCpu)
      } on the CPU`;
      log(1, times);
      faster = onGpu <= onCpu ? gpu : cpu;
      return opened(faster, faster === gpu ? "" : `, since ${times}`);
    } finally {
      for (const ops of [gpu, cpu]) if (ops !== faster) ops[Symbol.dispose]();
    }
  }

  async #openCpu(fallback: string): Promise<Opened> {
    return opened(await this.#makers.cpu(), fallback);
  }

  #discard(opening: Promise<Opened> | undefined): void {
    this.#opened = undefined;
    opening?.then((opened) => {
      opened.discarded = true;
      closeIfUnused(opened);
    }, () => {}); // what opening threw went to whoever waited for it
  }

  /** Frees the device, when the last work on it has ended. */
  [Symbol.dispose](): void {
    this.#discard(this.#opened);
  }
}

const opened = (ops: TuckerOps, fallback: string): Opened => ({ ops, fallback, users: 0, discarded: false });

/** Buffers of work that is under way must not lose their device: its error is the one that counts. */
function closeIfUnused({ ops, users, discarded }: Opened): void {
  if (discarded && users === 0) ops[Symbol.dispose]();
}

const milliseconds = (seconds: number): string => `${(1000 * seconds).toPrecision(2)} ms`;
