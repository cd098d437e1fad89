/**
 * Reading mapped buffers without the 10 ms that Deno's `mapAsync` sleeps before it resolves.
 *
 * Deno 2.9 waits for the GPU inside the call of `mapAsync`, so the buffer is mapped when the call returns; the promise
 * follows after a sleep, however small the buffer (measured: 12 ms, against 0.2 ms here). A decomposition waits several times
 * a sweep, so those sleeps would be most of its time. By the specification `getMappedRange` throws an OperationError on a
 * buffer that isn't mapped yet: then the promise is awaited as usual. (On a buffer that was never mapped before, Deno 2.9
 * panics there instead of throwing, so a buffer's first mapping is always awaited.)
 *
 * @module
 */

/** Milliseconds after which a read lets the event loop run: messages and cancellation must get through. */
const PAUSE_AFTER = 50;

/** Maps readback buffers of one device. */
export class Readback {
  readonly #mappedBefore = new WeakSet<GPUBuffer>();
  #lastPause = performance.now();

  /** Maps the first `bytes` of a buffer for the length of a call. */
  async withMapped(buffer: GPUBuffer, bytes: number, use: (range: ArrayBuffer) => void): Promise<void> {
    const mapping = buffer.mapAsync(GPUMapMode.READ, 0, bytes);
    let range = this.#mappedBefore.has(buffer) ? rangeIfMapped(buffer, bytes) : undefined;
    if (range === undefined) {
      await mapping;
      this.#mappedBefore.add(buffer);
      this.#lastPause = performance.now();
      range = buffer.getMappedRange(0, bytes);
    } else {
      mapping.catch(() => {}); // the numbers are here; nothing is left to be told
    }
    use(range);
    buffer.unmap();
  }

  /** Lets the event loop run, if it hasn't for a while. */
  async pause(): Promise<void> {
    if (performance.now() - this.#lastPause < PAUSE_AFTER) return;
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    this.#lastPause = performance.now();
  }
}

function rangeIfMapped(buffer: GPUBuffer, bytes: number): ArrayBuffer | undefined {
  try {
    return buffer.getMappedRange(0, bytes);
  } catch {
    return undefined;
  }
}
