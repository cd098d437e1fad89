import { assertEquals } from "@std/assert/mod.js";
import { GpuArray } from "../../src/gpu/array.ts";
import { type GpuDevice, openDevice } from "../../src/gpu/device.ts";
import { type BoundRegion, type Box3, type Range, readRegion, type Region, writeRegion } from "../../src/gpu/region.ts";
import { skipGpu } from "./adapter.ts";

const BYTES = Float32Array.BYTES_PER_ELEMENT;
const range = (start: number, end: number): Range => ({ start, end });
const regions: readonly Region[] = [
  { outer: range(0, 5), rows: range(0, 6), columns: range(0, 7) },
  { outer: range(1, 4), rows: range(0, 6), columns: range(0, 7) },
  { outer: range(1, 4), rows: range(2, 5), columns: range(0, 7) },
  { outer: range(1, 4), rows: range(2, 5), columns: range(3, 6) },
  { outer: range(4, 5), rows: range(5, 6), columns: range(6, 7) },
];

/** A 5×6×7 box whose number (o, r, c) is its own index. */
function boxOf(device: GpuDevice): Box3 {
  return {
    array: GpuArray.from(device, Float32Array.from({ length: 210 }, (_, i) => i), "box"),
    outer: 5,
    rows: 6,
    columns: 7,
  };
}

/** Indices in the whole box of a region's numbers, in order. */
function* indices({ outer, rows, columns }: Region): Generator<number> {
  for (let o = outer.start; o < outer.end; o++) {
    for (let r = rows.start; r < rows.end; r++) {
      for (let c = columns.start; c < columns.end; c++) yield (o * 6 + r) * 7 + c;
    }
  }
}

/** Where the numbers of a bound region lie in its slice, in order. */
function* places({ base, outer, rows, columns, outerStride, rowStride }: BoundRegion): Generator<number> {
  for (let o = 0; o < outer; o++) {
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) yield base + o * outerStride + r * rowStride + c;
  }
}

// a binding of 512 bytes holds less than a region; a buffer of 256 cuts the box in four
for (const limits of [{}, { bindingBytes: 512 }, { bufferBytes: 1024, bindingBytes: 1024 }, { bufferBytes: 256 }]) {
  Deno.test(
    { name: `regions are read and written whole, limits ${JSON.stringify(limits)}`, ignore: skipGpu },
    async () => {
      using device = await openDevice({ allowFallbackAdapter: true, limits });
      for (const region of regions) {
        const expected = [...indices(region)];
        if (expected.length * BYTES > (Math.min(limits.bindingBytes ?? 4096, limits.bufferBytes ?? 4096))) continue;
        const box = boxOf(device);
        using _array = box.array;
        using seen = new GpuArray(device, 512, "seen");
        const at = readRegion(box, region, (bound) => {
          const { buffer, offset, size } = bound.slice;
          seen.segments.forEach((segment, index) => {
            const start = index * seen.segmentLength * BYTES;
            const bytes = Math.min(size - start, seen.segmentLength * BYTES);
            if (bytes > 0) {
              device.commands.copy({ buffer, offset: offset + start }, { buffer: segment, offset: 0 }, bytes);
            }
          });
          return [...places(bound)];
        });
        const numbers = await seen.read();
        assertEquals(at.map((place) => numbers[place]), expected);

        const source = GpuArray.from(device, Float32Array.of(-1), "minus one");
        writeRegion(box, region, true, (bound) => {
          const last = [...places(bound)].at(-1)!; // one number changes, the others are kept
          device.commands.copy({ buffer: source.segments[0]!, offset: 0 }, {
            buffer: bound.slice.buffer,
            offset: bound.slice.offset + last * BYTES,
          }, BYTES);
        });
        const written = await box.array.read();
        const changed = expected.at(-1)!;
        assertEquals([...written], Array.from({ length: 210 }, (_, i) => i === changed ? -1 : i));
        source[Symbol.dispose]();
      }
    },
  );
}
