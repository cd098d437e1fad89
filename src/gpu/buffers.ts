/**
 * GPU buffers that are used again instead of being left to the collector.
 *
 * @module
 */
import type { GpuFaults } from "./faults.ts";

/** What a pooled buffer is for: work on the device, or carrying results to the host. */
export type BufferRole = "storage" | "readback";

const USAGE: Record<BufferRole, number> = {
  storage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  readback: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
};

/** Unused bytes that the pool keeps; beyond them the buffers unused for longest are destroyed. */
const KEPT_BYTES = 2 ** 30;

/**
 * Buffers by role and size. A released buffer may be handed out at once: commands run in the order in which they were
 * recorded, so what still uses it comes first. Its contents are whatever they were.
 */
export class BufferPool implements Disposable {
  readonly #device: GPUDevice;
  readonly #faults: GpuFaults;
  readonly #largest: number;
  /** Unused buffers, longest unused first. */
  readonly #free: { readonly role: BufferRole; readonly buffer: GPUBuffer }[] = [];
  readonly #used = new Map<GPUBuffer, BufferRole>();
  #freeBytes = 0;
  /** Commands that were recorded and not submitted may name a buffer; called before one is destroyed. */
  beforeDestroy: () => void = () => {};

  /** @param largest bytes of a buffer that the device allows */
  constructor(device: GPUDevice, faults: GpuFaults, largest: number) {
    this.#device = device;
    this.#faults = faults;
    this.#largest = largest;
  }

  /** A buffer of at least `bytes`, unspecified contents. An allocation that fails is thrown at the next await. */
  acquire(bytes: number, role: BufferRole, label: string): GPUBuffer {
    const size = Math.max(bytes, Math.min(sizeClass(bytes), this.#largest));
    const index = this.#free.findLastIndex((entry) => entry.role === role && entry.buffer.size === size);
    const buffer = index < 0 ? this.#create(size, role, label) : this.#free.splice(index, 1)[0]!.buffer;
    if (index >= 0) this.#freeBytes -= size;
    this.#used.set(buffer, role);
    return buffer;
  }

  /** Gives a buffer back. */
  release(buffer: GPUBuffer): void {
    const role = this.#used.get(buffer);
    if (role === undefined) throw new TypeError(`buffer ${buffer.label} was released twice`);
    this.#used.delete(buffer);
    this.#free.push({ role, buffer });
    this.#freeBytes += buffer.size;
    this.#trim(KEPT_BYTES);
  }

  /** Bytes of all buffers that the pool holds, in use or not. */
  get bytes(): number {
    return [...this.#used.keys()].reduce((sum, buffer) => sum + buffer.size, this.#freeBytes);
  }

  /** Number of buffers that were handed out and not given back. */
  get inUse(): number {
    return this.#used.size;
  }

  #create(size: number, role: BufferRole, label: string): GPUBuffer {
    return this.#faults.scoped(
      this.#device,
      `${label} (${size} bytes)`,
      () => this.#device.createBuffer({ label, size, usage: USAGE[role] }),
    );
  }

  #trim(kept: number): void {
    if (this.#freeBytes <= kept) return;
    this.beforeDestroy();
    while (this.#freeBytes > kept) {
      const { buffer } = this.#free.shift()!;
      this.#freeBytes -= buffer.size;
      buffer.destroy();
    }
  }

  [Symbol.dispose](): void {
    for (const { buffer } of this.#free) buffer.destroy();
    for (const buffer of this.#used.keys()) buffer.destroy();
    this.#free.length = 0;
    this.#used.clear();
    this.#freeBytes = 0;
  }
}

/** Rounds up to a multiple of an eighth of the next lower power of two (and of 256), so that like sizes share buffers. */
function sizeClass(bytes: number): number {
  const unit = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(1, bytes))) - 3));
  return Math.max(256, Math.ceil(bytes / unit) * unit);
}
