/**
 * Commands in order: dispatches and copies are recorded into one encoder and submitted together.
 *
 * @module
 */
import { log } from "../log.ts";
import type { GpuLimits } from "./limits.ts";
import type { GpuFaults } from "./faults.ts";
import type { Pipeline } from "./pipelines.ts";

/** Part of a buffer, in bytes; the offset meets the device's alignment. */
export interface BufferSlice {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Dispatches that are recorded before they are submitted; each has a slot in the parameter buffer. */
const SLOTS = 128;
/** Bytes of a slot: every device's alignment of uniform offsets divides it, every kernel's parameters fit. */
const SLOT_BYTES = 256;
/** Bytes that are handed to the driver at once, so that it copies one piece while the next is prepared. */
const UPLOAD_BYTES = 32 * 2 ** 20;
/** Bytes whose copy is worth a submission of its own. */
const SUBMITTED_BYTES = 2 ** 20;

/** Records commands and submits them. Errors are kept in the device's faults, with the labels of what ran. */
export class CommandQueue implements Disposable {
  readonly #device: GPUDevice;
  readonly #faults: GpuFaults;
  readonly #limits: GpuLimits;
  readonly #params: GPUBuffer;
  readonly #values = new Uint32Array(SLOTS * SLOT_BYTES / 4);
  #encoder: GPUCommandEncoder | undefined;
  #labels = new Set<string>();
  #slot = 0;
  #uploadedBytes = 0;

  constructor(device: GPUDevice, faults: GpuFaults, limits: GpuLimits) {
    this.#device = device;
    this.#faults = faults;
    this.#limits = limits;
    this.#params = device.createBuffer({
      label: "kernel parameters",
      size: SLOTS * SLOT_BYTES,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
  }

  /** What was recorded last, for errors that come without a name of their own. */
  lastLabel = "device start";

  /**
   * Records one dispatch. Every grid is folded into two dimensions, so its size has no practical limit.
   *
   * @param buffers one for each of the kernel's bindings, in order
   */
  dispatch<P extends string>(
    pipeline: Pipeline<P>,
    params: Readonly<Record<P, number>>,
    buffers: readonly BufferSlice[],
  ): void {
    const { kernel, key } = pipeline;
    const groups = kernel.workgroups(params, pipeline.overrides);
    if (groups === 0) return;
    const [x, y] = fold(groups, this.#limits.workgroupsPerDimension);
    if (this.#slot === SLOTS) this.flush();
    const slot = this.#slot++;
    kernel.params.forEach((name, index) => {
      const value = params[name];
      if (!(Number.isInteger(value) && value >= 0 && value < 2 ** 32)) {
        throw new RangeError(`kernel ${key}: parameter ${name} must be an unsigned 32-bit integer, got ${value}`);
      }
      this.#values[slot * SLOT_BYTES / 4 + index] = value;
    });
    log(2, `GPU: ${key}, ${x}×${y} workgroups`);
    this.#record(key, (encoder) => {
      const size = Math.ceil(kernel.params.length / 4) * 16;
      const bindings = [{ buffer: this.#params, offset: slot * SLOT_BYTES, size }, ...buffers];
      const group = this.#device.createBindGroup({
        label: key,
        layout: pipeline.layout,
        entries: bindings.map((resource, binding) => ({ binding, resource })),
      });
      const pass = encoder.beginComputePass({ label: key });
      pass.setPipeline(pipeline.raw);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y);
      pass.end();
    });
  }

  /** Records a copy of `size` bytes (a multiple of 4) between two different buffers. */
  copy(source: Omit<BufferSlice, "size">, target: Omit<BufferSlice, "size">, size: number): void {
    this.#record("copy", (encoder) => {
      encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, target.offset, size);
    });
  }

  /** Records filling a buffer with zeros. */
  clear(buffer: GPUBuffer): void {
    this.#record("clear", (encoder) => encoder.clearBuffer(buffer));
  }

  /**
   * Copies host data in, after everything that was recorded before. The data may be reused at once.
   *
   * @param offset where in the buffer, in bytes: a multiple of 4. What follows the data in the last word becomes 0
   */
  upload(buffer: GPUBuffer, data: ArrayBufferView<ArrayBuffer>, offset = 0): void {
    this.flush(); // a write takes effect before the next submission, so what is recorded must be submitted first
    this.#uploadedBytes += data.byteLength;
    this.#run(`upload of ${data.byteLength} bytes`, () => {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const words = bytes.subarray(0, bytes.length - bytes.length % 4);
      for (let start = 0; start < words.length; start += UPLOAD_BYTES) {
        const part = words.subarray(start, start + UPLOAD_BYTES);
        this.#device.queue.writeBuffer(buffer, offset + start, part);
        // starts this piece's copy; small ones go with the next submission, whose own cost is theirs otherwise
        if (part.length >= SUBMITTED_BYTES) this.#device.queue.submit([]);
      }
      if (words.length === bytes.length) return;
      const last = new Uint8Array(4);
      last.set(bytes.subarray(words.length));
      this.#device.queue.writeBuffer(buffer, offset + words.length, last);
    });
  }

  /** Bytes of host data that were copied in so far; parameters of kernels don't count. */
  get uploadedBytes(): number {
    return this.#uploadedBytes;
  }

  /** Submits everything that is recorded. */
  flush(): void {
    const encoder = this.#encoder;
    if (encoder === undefined) return;
    this.#encoder = undefined;
    this.#run([...this.#labels].join(", "), () => {
      this.#device.queue.writeBuffer(this.#params, 0, this.#values, 0, this.#slot * SLOT_BYTES / 4);
      this.#device.queue.submit([encoder.finish()]);
    });
    this.#labels = new Set();
    this.#slot = 0;
  }

  #record(label: string, record: (encoder: GPUCommandEncoder) => void): void {
    this.#encoder ??= this.#device.createCommandEncoder({ label: "tuckerd" });
    const encoder = this.#encoder;
    this.#labels.add(label);
    this.#run(label, () => record(encoder));
  }

  #run(label: string, call: () => void): void {
    this.lastLabel = label;
    this.#faults.scoped(this.#device, label, call);
  }

  [Symbol.dispose](): void {
    this.#encoder = undefined;
    this.#params.destroy();
  }
}

/** Two dimensions whose product is at least `groups` and barely more. */
function fold(groups: number, limit: number): [number, number] {
  const y = Math.ceil(groups / limit);
  if (y > limit) throw new RangeError(`a grid of ${groups} workgroups exceeds ${limit}×${limit}`);
  return [Math.ceil(groups / y), y];
}
