/**
 * Opening a WebGPU device: the choice of the adapter, its limits, its name for the report.
 *
 * @module
 */
import { preventDisplayComplaint } from "../machine.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { BufferPool } from "./buffers.ts";
import { CommandQueue } from "./dispatch.ts";
import { describe, GpuFaults, lost } from "./faults.ts";
import { PipelineCache } from "./pipelines.ts";
import type { GpuLimits } from "./limits.ts";
import { Readback } from "./readback.ts";

/** An H200 runs some 300 of the largest workgroups at once; software runs one on each core. */
const PARALLEL = { gpu: 512, software: 8 };

/**
 * Bytes of a buffer at most: what Vulkan guarantees of one allocation, since WebGPU doesn't tell what this one's are
 * (`maxMemoryAllocationSize`); larger arrays take several buffers. wgpu says 2⁶⁴ − 1 of every NVIDIA GPU under Linux: no allocation
 * of that size exists, and Deno refuses to be asked for more than 2⁵³ − 1, so that there would be no device at all.
 */
const LARGEST_BUFFER = 2 ** 30;

/** Options of {@linkcode openDevice}. */
export interface DeviceOptions {
  /** Whether a software adapter will do; the default is no: it isn't a GPU, and slower than the CPU's own libraries. */
  readonly allowFallbackAdapter?: boolean;
  /** Other limits than the adapter's own (never above it), so that tests see small work cut into pieces. */
  readonly limits?: Partial<GpuLimits>;
}

/** An open device with its buffers, pipelines and command queue. Dispose it to free everything. */
export class GpuDevice implements Disposable {
  readonly raw: GPUDevice;
  /** The adapter in words, such as `NVIDIA H200`. */
  readonly adapter: string;
  /** Whether the adapter is software: correct, but not a GPU. */
  readonly isFallback: boolean;
  readonly limits: GpuLimits;
  readonly faults = new GpuFaults();
  readonly readback = new Readback();
  readonly buffers: BufferPool;
  readonly pipelines: PipelineCache;
  readonly commands: CommandQueue;
  #disposed = false;

  /** @internal Use {@linkcode openDevice}. */
  constructor(raw: GPUDevice, adapter: GPUAdapter, limits: GpuLimits) {
    this.raw = raw;
    this.adapter = describeAdapter(adapter.info);
    this.isFallback = adapter.info.isFallbackAdapter;
    this.limits = limits;
    this.buffers = new BufferPool(raw, this.faults, limits.bufferBytes);
    this.pipelines = new PipelineCache(raw);
    this.commands = new CommandQueue(raw, this.faults, limits);
    this.buffers.beforeDestroy = () => this.commands.flush();
    raw.addEventListener("uncapturederror", (event) => {
      this.faults.report(describe((event as GPUUncapturedErrorEvent).error, this.commands.lastLabel));
    });
    raw.lost.then((info) => {
      if (!this.#disposed) this.faults.report(lost(this.commands.lastLabel, `${info.reason}: ${info.message}`));
    });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.buffers[Symbol.dispose]();
    this.commands[Symbol.dispose]();
    this.raw.destroy();
  }
}

/**
 * Opens the most capable adapter with its limits.
 *
 * @throws TuckerdError `unavailable` if there is no adapter, or only a software one and that isn't allowed; `failed` if the
 * adapter gives no device
 */
export async function openDevice(options: DeviceOptions = {}): Promise<GpuDevice> {
  preventDisplayComplaint();
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new TuckerdError(
      "unavailable",
      "no WebGPU adapter: a Vulkan, Metal or Direct3D 12 driver is needed (on Linux see `vulkaninfo --summary`); " +
        "install one, or decompose on the CPU (--device cpu)",
    );
  }
  if (adapter.info.isFallbackAdapter && options.allowFallbackAdapter !== true) {
    throw new TuckerdError(
      "unavailable",
      `the only WebGPU adapter is software (${describeAdapter(adapter.info)}), which is no GPU; decompose on the CPU ` +
        "(--device cpu), or ask for the software adapter explicitly (--device webgpu)",
      { fields: { adapter: describeAdapter(adapter.info) } },
    );
  }
  const limits: GpuLimits = {
    bindingBytes: capped(adapter.limits.maxStorageBufferBindingSize, options.limits?.bindingBytes),
    bufferBytes: capped(requiredLimits(adapter.limits).maxBufferSize, options.limits?.bufferBytes),
    workgroupsPerDimension: Math.min(
      adapter.limits.maxComputeWorkgroupsPerDimension,
      options.limits?.workgroupsPerDimension ?? Infinity,
    ),
    parallelWorkgroups: options.limits?.parallelWorkgroups ??
      (adapter.info.isFallbackAdapter ? PARALLEL.software : PARALLEL.gpu),
  };
  const device = await requestDevice(adapter);
  log(1, `GPU: ${describeAdapter(adapter.info)}, ${limits.bindingBytes} bytes a binding`);
  return new GpuDevice(device, adapter, limits);
}

/** The limits that a device is asked for: those of its adapter, as far as they are used. */
export function requiredLimits(
  { maxStorageBufferBindingSize, maxBufferSize }: Pick<
    GPUSupportedLimits,
    "maxStorageBufferBindingSize" | "maxBufferSize"
  >,
): Record<"maxStorageBufferBindingSize" | "maxBufferSize", number> {
  return { maxStorageBufferBindingSize, maxBufferSize: Math.min(maxBufferSize, LARGEST_BUFFER) };
}

async function requestDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  try {
    return await adapter.requestDevice({
      label: "tuckerd",
      requiredLimits: requiredLimits(adapter.limits),
    });
  } catch (error) {
    throw new TuckerdError("failed", `GPU ${describeAdapter(adapter.info)} gave no device: ${error}`, { cause: error });
  }
}

/** The smaller of two limits in whole 256-byte units, which is every alignment that WebGPU asks of offsets. */
function capped(limit: number, asked = Infinity): number {
  return Math.floor(Math.min(limit, asked) / 256) * 256;
}

function describeAdapter(info: GPUAdapterInfo): string {
  const name = info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") ||
    "unnamed GPU";
  return info.isFallbackAdapter ? `${name}, software` : name;
}
