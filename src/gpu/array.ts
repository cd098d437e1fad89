/**
 * Arrays of float32 numbers on a device, of any length: one that exceeds a buffer's limit lies in several.
 *
 * @module
 */
import type { GpuDevice } from "./device.ts";
import type { BufferSlice } from "./dispatch.ts";
import { lost } from "./faults.ts";

const BYTES = Float32Array.BYTES_PER_ELEMENT;
/** Bytes of one readback buffer: large enough for the bus, small enough to be used again. */
const READBACK_BYTES = 64 * 2 ** 20;

/** A flat float32 array in one or more buffers of equal length (but the last). Dispose it to give the buffers back. */
export class GpuArray implements Disposable {
  readonly device: GpuDevice;
  readonly length: number;
  /** Numbers in each buffer but the last. */
  readonly segmentLength: number;
  #segments: GPUBuffer[] | undefined;

  /** Unspecified contents. */
  constructor(device: GpuDevice, length: number, label: string) {
    this.device = device;
    this.length = length;
    this.segmentLength = device.limits.bufferBytes / BYTES;
    this.#segments = [];
    for (let start = 0; start < length; start += this.segmentLength) {
      const bytes = Math.min(length - start, this.segmentLength) * BYTES;
      this.#segments.push(device.buffers.acquire(bytes, "storage", label));
    }
  }

  /** A copy of host data. */
  static from(device: GpuDevice, data: Float32Array, label: string): GpuArray {
    const array = new GpuArray(device, data.length, label);
    array.segments.forEach((buffer, index) => {
      const start = index * array.segmentLength;
      device.commands.upload(buffer, data.subarray(start, start + array.segmentLength));
    });
    return array;
  }

  /** The buffers. */
  get segments(): readonly GPUBuffer[] {
    if (this.#segments === undefined) {
      throw new TypeError(`a GPU array of ${this.length} numbers was used after its disposal`);
    }
    return this.#segments;
  }

  /** All of an array that lies in one buffer, in whole vectors, as a kernel binds it. */
  get slice(): BufferSlice {
    const [buffer, ...more] = this.segments;
    if (buffer === undefined || more.length > 0) {
      throw new RangeError(
        `one buffer was expected to hold ${this.length} numbers, but it takes ${this.segments.length}`,
      );
    }
    return { buffer, offset: 0, size: Math.ceil(this.length * BYTES / 16) * 16 };
  }

  /** Sets all numbers to zero. */
  clear(): void {
    for (const buffer of this.segments) this.device.commands.clear(buffer);
  }

  /** Copies a range of this array into another one. */
  copyTo(
    target: GpuArray,
    range: { readonly start: number; readonly targetStart: number; readonly length: number },
  ): void {
    let done = 0;
    while (done < range.length) {
      const from = this.#locate(range.start + done);
      const to = target.#locate(range.targetStart + done);
      const length = Math.min(range.length - done, this.segmentLength - from.index, target.segmentLength - to.index);
      this.device.commands.copy(
        { buffer: from.buffer, offset: from.index * BYTES },
        { buffer: to.buffer, offset: to.index * BYTES },
        length * BYTES,
      );
      done += length;
    }
  }

  /** The numbers as they are now: what is recorded later doesn't change the answer. */
  async read(): Promise<Float32Array> {
    const { buffers, commands, faults, readback } = this.device;
    const pieces: { readonly staging: GPUBuffer; readonly start: number; readonly bytes: number }[] = [];
    this.segments.forEach((buffer, index) => {
      const segmentBytes = Math.min(this.length - index * this.segmentLength, this.segmentLength) * BYTES;
      for (let offset = 0; offset < segmentBytes; offset += READBACK_BYTES) {
        const bytes = Math.min(READBACK_BYTES, segmentBytes - offset);
        const staging = buffers.acquire(bytes, "readback", "readback");
        commands.copy({ buffer, offset }, { buffer: staging, offset: 0 }, bytes);
        pieces.push({ staging, start: index * this.segmentLength + offset / BYTES, bytes });
      }
    });
    commands.flush();
    const numbers = new Float32Array(this.length);
    try {
      await Promise.all(pieces.map(async ({ staging, start, bytes }) => {
        await readback.withMapped(staging, bytes, (range) => numbers.set(new Float32Array(range), start));
      }));
    } catch (error) {
      await faults.settle(); // what caused it is more telling
      throw lost(commands.lastLabel, error);
    } finally {
      for (const { staging } of pieces) buffers.release(staging);
    }
    await faults.settle();
    await readback.pause();
    return numbers;
  }

  #locate(index: number): { buffer: GPUBuffer; index: number } {
    return { buffer: this.segments[Math.floor(index / this.segmentLength)]!, index: index % this.segmentLength };
  }

  [Symbol.dispose](): void {
    if (this.#segments === undefined) return;
    for (const buffer of this.#segments) this.device.buffers.release(buffer);
    this.#segments = undefined;
  }
}
