/**
 * Arrays of float32 numbers on a device, of any length: one that exceeds a buffer's limit lies in several. Arrays that only
 * kernels read may hold float16 numbers instead (see `half.ts`).
 *
 * @module
 */
import type { GpuDevice } from "./device.ts";
import type { BufferSlice } from "./dispatch.ts";
import { lost } from "./faults.ts";

const BYTES = Float32Array.BYTES_PER_ELEMENT;
const HALF_BYTES = Uint16Array.BYTES_PER_ELEMENT;
/** Bytes of one readback buffer: large enough for the bus, small enough to be used again. */
const READBACK_BYTES = 64 * 2 ** 20;

/** A flat array in one or more buffers of equal length (but the last). Dispose it to give the buffers back. */
export class GpuArray implements Disposable {
  readonly device: GpuDevice;
  readonly length: number;
  /** Numbers in each buffer but the last. */
  readonly segmentLength: number;
  /**
   * 0 for float32 numbers. Otherwise the array holds binary16 numbers, two in each 32-bit word, and stands for them times
   * this number.
   */
  readonly unit: number;
  readonly bytesPerNumber: number;
  #segments: GPUBuffer[] | undefined;

  /** Unspecified contents. */
  constructor(device: GpuDevice, length: number, label: string, unit = 0) {
    this.device = device;
    this.length = length;
    this.unit = unit;
    this.bytesPerNumber = unit === 0 ? BYTES : HALF_BYTES;
    this.segmentLength = device.limits.bufferBytes / this.bytesPerNumber;
    this.#segments = [];
    for (let start = 0; start < length; start += this.segmentLength) {
      const bytes = Math.min(length - start, this.segmentLength) * this.bytesPerNumber;
      this.#segments.push(device.buffers.acquire(bytes, "storage", label));
    }
  }

  /** A copy of host data. */
  static from(device: GpuDevice, data: Float32Array, label: string): GpuArray {
    const array = new GpuArray(device, data.length, label);
    array.segments.forEach((buffer, index) => {
      const start = index * array.segmentLength;
      device.commands.upload(buffer, data.subarray(start, start + array.segmentLength) as Float32Array<ArrayBuffer>);
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
    return { buffer, offset: 0, size: Math.ceil(this.length * this.bytesPerNumber / 16) * 16 };
  }

  /** Sets all numbers to zero. */
  clear(): void {
    for (const buffer of this.segments) this.device.commands.clear(buffer);
  }

  /** Copies a range of this array into another one; both hold float32 numbers. */
  copyTo(
    target: GpuArray,
    range: { readonly start: number; readonly targetStart: number; readonly length: number },
  ): void {
    if (this.unit !== 0 || target.unit !== 0) throw new TypeError("float16 arrays aren't copied in parts");
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
    if (this.unit !== 0) return await this.#readHalf();
    return await this.#readWords();
  }

  /** Both ways of storing fill 32-bit words. */
  async #readWords(): Promise<Float32Array<ArrayBuffer>> {
    const { buffers, commands, faults, readback } = this.device;
    const words = Math.ceil(this.length * this.bytesPerNumber / BYTES);
    const segmentWords = this.segmentLength * this.bytesPerNumber / BYTES;
    const pieces: { readonly staging: GPUBuffer; readonly start: number; readonly bytes: number }[] = [];
    this.segments.forEach((buffer, index) => {
      const segmentBytes = Math.min(words - index * segmentWords, segmentWords) * BYTES;
      for (let offset = 0; offset < segmentBytes; offset += READBACK_BYTES) {
        const bytes = Math.min(READBACK_BYTES, segmentBytes - offset);
        const staging = buffers.acquire(bytes, "readback", "readback");
        commands.copy({ buffer, offset }, { buffer: staging, offset: 0 }, bytes);
        pieces.push({ staging, start: index * segmentWords + offset / BYTES, bytes });
      }
    });
    commands.flush();
    // Mapping waits on this thread (see readback.ts). Whoever else has work for the host does it first, while the device computes.
    await undefined;
    const numbers = new Float32Array(words);
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

  async #readHalf(): Promise<Float32Array> {
    const halves = new Uint16Array((await this.#readWords()).buffer, 0, this.length);
    return Float32Array.from(halves, (bits) => this.unit * widened(bits));
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

/** A binary16 number as the device stores them: zero or normal (IEEE 754-2019, 3.4). */
function widened(bits: number): number {
  const magnitude = (bits & 0x7fff) === 0 ? 0 : (1 + (bits & 0x3ff) / 1024) * 2 ** (((bits >> 10) & 0x1f) - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}
