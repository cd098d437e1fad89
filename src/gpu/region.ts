/**
 * Box-shaped parts of a dense three-way array, and how a kernel gets to see them.
 *
 * @module
 */
import { GpuArray } from "./array.ts";
import type { GpuLimits } from "./limits.ts";
import type { BufferSlice } from "./dispatch.ts";

/** A half-open range of indices. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** A dense outer × rows × columns array. */
export interface Box3 {
  readonly array: GpuArray;
  readonly outer: number;
  readonly rows: number;
  readonly columns: number;
}

/** A part of it. */
export interface Region {
  readonly outer: Range;
  readonly rows: Range;
  readonly columns: Range;
}

/** A region that a kernel can use: number (o, r, c) of it lies at base + o·outerStride + r·rowStride + c of the slice. */
export interface BoundRegion {
  readonly slice: BufferSlice;
  readonly base: number;
  /** 0 where the slice holds float32 numbers, else what its float16 numbers are multiplied by. */
  readonly unit: number;
  readonly outerStride: number;
  readonly rowStride: number;
  readonly outer: number;
  readonly rows: number;
  readonly columns: number;
}

/** Number of indices in a range. */
export const extent = ({ start, end }: Range): number => end - start;

/** All of an array. */
export function whole({ outer, rows, columns }: Box3): Region {
  return { outer: { start: 0, end: outer }, rows: { start: 0, end: rows }, columns: { start: 0, end: columns } };
}

/** Cuts 0..length into ranges of at most `step`. */
export function* cut(length: number, step: number): Generator<Range> {
  for (let start = 0; start < length; start += step) yield { start, end: Math.min(start + step, length) };
}

/** Float32 numbers that a region may hold, whatever its alignment: less than a binding's limit. */
export function regionLimit({ bindingBytes, bufferBytes }: GpuLimits): number {
  return (Math.min(bindingBytes, bufferBytes) - 256) / Float32Array.BYTES_PER_ELEMENT;
}

/**
 * Lets `use` read a region. It is bound where it lies, if it spans no more than a binding and lies in one buffer;
 * otherwise it is copied together first.
 */
export function readRegion<T>(box: Box3, region: Region, use: (bound: BoundRegion) => T): T {
  const inPlace = bind(box, region);
  if (inPlace !== undefined) return use(inPlace);
  using compact = new GpuArray(box.array.device, size(region), "gathered region");
  move(box, region, compact, "gather");
  return use(bindCompact(compact, region));
}

/**
 * Lets `use` write a region, all of it; with `keep` the region holds its present numbers before, otherwise unspecified ones.
 */
export function writeRegion<T>(box: Box3, region: Region, keep: boolean, use: (bound: BoundRegion) => T): T {
  const inPlace = bind(box, region);
  if (inPlace !== undefined) return use(inPlace);
  using compact = new GpuArray(box.array.device, size(region), "scattered region");
  if (keep) move(box, region, compact, "gather");
  const result = use(bindCompact(compact, region));
  move(box, region, compact, "scatter");
  return result;
}

const size = ({ outer, rows, columns }: Region): number => extent(outer) * extent(rows) * extent(columns);

function bind(box: Box3, region: Region): BoundRegion | undefined {
  const { array, rows, columns } = box;
  const { bytesPerNumber: bytes, unit } = array;
  const first = (region.outer.start * rows + region.rows.start) * columns + region.columns.start;
  const last = ((region.outer.end - 1) * rows + region.rows.end - 1) * columns + region.columns.end - 1;
  const segment = Math.floor(first / array.segmentLength);
  if (Math.floor(last / array.segmentLength) !== segment) return undefined;
  const start = first - segment * array.segmentLength;
  const offset = Math.floor(start * bytes / 256) * 256;
  const base = start - offset / bytes;
  // vec4 bindings cover whole vectors; buffers are padded to 256 bytes
  const size = Math.ceil((base + last - first + 1) * bytes / 16) * 16;
  if (size > array.device.limits.bindingBytes) return undefined;
  return {
    slice: { buffer: array.segments[segment]!, offset, size },
    base,
    unit,
    outerStride: rows * columns,
    rowStride: columns,
    outer: extent(region.outer),
    rows: extent(region.rows),
    columns: extent(region.columns),
  };
}

function bindCompact(array: GpuArray, region: Region): BoundRegion {
  const box = { array, outer: extent(region.outer), rows: extent(region.rows), columns: extent(region.columns) };
  const bound = bind(box, whole(box));
  if (bound === undefined) throw new RangeError(`a region of ${array.length} numbers exceeds a binding`);
  return bound;
}

/** Copies a region into a compact array or back, in runs as long as they get. */
function move(box: Box3, region: Region, compact: GpuArray, direction: "gather" | "scatter"): void {
  const rows = extent(region.rows);
  const columns = extent(region.columns);
  const wholeRows = columns === box.columns;
  const wholeOuter = wholeRows && rows === box.rows;
  const run = wholeOuter ? size(region) : wholeRows ? rows * columns : columns;
  for (let at = 0; at < size(region); at += run) {
    const row = Math.floor(at / columns);
    const outer = region.outer.start + Math.floor(row / rows);
    const start = (outer * box.rows + region.rows.start + row % rows) * box.columns + region.columns.start;
    if (direction === "gather") box.array.copyTo(compact, { start, targetStart: at, length: run });
    else compact.copyTo(box.array, { start: at, targetStart: start, length: run });
  }
}
