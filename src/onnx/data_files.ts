/**
 * External data on its way to another folder: the files keep their names, and of each goes along what the model still uses. ONNX's
 * own tools refuse links, and ONNX Runtime refuses paths that leave the model's folder, so bytes it must be.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { dirname } from "@std/path/mod.js";
import { release } from "../release.ts";
import { withFields } from "./codec.ts";
import { externalLocation } from "./external.ts";
import { StringStringEntryProtoSchema, type TensorProto, TensorProto_DataLocation } from "./gen/onnx_pb.ts";
import { byteSizeOf } from "./tensor.ts";

/** Offsets keep their remainder by this, so that what could be mapped into memory still can be. */
const PAGE = 4096;
const CHUNK = 1 << 22;

/** A range of a data file, and where it goes. */
export interface DataRange {
  readonly from: number;
  readonly length: number;
  readonly to: number;
}

/** What goes along of one file. */
export interface PackedFile {
  /** Relative to the model's folder. */
  readonly location: string;
  /** Relative to the new folder: the same, unless another graph's data has that name there already. */
  readonly target: string;
  /** In the order of the file; neither overlapping nor touching. */
  readonly ranges: readonly DataRange[];
  /** Bytes of the new file. */
  readonly size: number;
}

/** Works out which ranges the tensors use, and closes the gaps between them. Ranges that tensors share stay shared. */
export function packData(tensors: Iterable<TensorProto>): PackedFile[] {
  const used = new Map<string, [start: number, end: number][]>();
  for (const tensor of tensors) {
    const { location, offset } = externalLocation(tensor, "");
    const ranges = used.get(location) ?? [];
    used.set(location, ranges);
    ranges.push([offset, offset + byteSizeOf(tensor)]);
  }
  return [...used].map(([location, all]) => {
    const ranges: DataRange[] = [];
    let size = 0;
    for (const [start, end] of merged(all)) {
      const to = size + (((start - size) % PAGE) + PAGE) % PAGE;
      ranges.push({ from: start, length: end - start, to });
      size = to + end - start;
    }
    return { location, target: location, ranges, size };
  });
}

/** A tensor that says where its bytes are after packing. */
export function movedTensor(tensor: TensorProto, files: readonly PackedFile[]): TensorProto {
  const { location, offset } = externalLocation(tensor, "");
  const { target, ranges } = files.find((file) => file.location === location)!;
  const range = ranges.findLast(({ from }) => from <= offset)!;
  return externalTensor(tensor, { location: target, offset: range.to + offset - range.from });
}

/** A tensor whose bytes lie in a file. */
export function externalTensor(
  tensor: TensorProto,
  { location, offset }: { readonly location: string; readonly offset: number },
): TensorProto {
  const entries = { location, offset: String(offset), length: String(byteSizeOf(tensor)) };
  return withFields<TensorProto>(tensor, {
    rawData: undefined!,
    dataLocation: TensorProto_DataLocation.EXTERNAL,
    externalData: Object.entries(entries).map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
  });
}

/** Writes a packed file; memory holds a few MiB of it at a time. Where nothing is left out, the file system may share the blocks. */
export async function writePacked(file: PackedFile, from: string, to: string): Promise<void> {
  const [source, target] = [`${from}/${file.location}`, `${to}/${file.target}`];
  await Deno.mkdir(dirname(target), { recursive: true });
  const { size } = await Deno.stat(source);
  const [first, ...more] = file.ranges;
  if (first?.from === 0 && first.length === size && more.length === 0) return await Deno.copyFile(source, target);
  using input = await Deno.open(source);
  using output = await Deno.open(target, { write: true, createNew: true });
  const buffer = new Uint8Array(CHUNK);
  for (const range of file.ranges) {
    await input.seek(range.from, Deno.SeekMode.Start);
    await output.seek(range.to, Deno.SeekMode.Start);
    for (let left = range.length; left > 0;) {
      const count = await input.read(buffer.subarray(0, Math.min(left, CHUNK)));
      if (count === null) throw new Error(`${source} ended while it was read`);
      for (let at = 0; at < count;) at += await output.write(buffer.subarray(at, count));
      left -= count;
    }
  }
  await output.sync();
}

/** A tensor on its way to a file: its bytes, or what makes them, and where they go. */
export interface PlacedTensor {
  readonly data: Uint8Array | (() => Promise<Uint8Array>);
  readonly offset: number;
}

/**
 * Writes tensors' bytes behind each other from their offsets on, to a new file or behind what a packed one holds. Bytes that are made
 * here are given back before the next are.
 */
export async function writeTensors(path: string, tensors: readonly PlacedTensor[]): Promise<void> {
  using output = await Deno.open(path, { write: true, create: true });
  for (const { data, offset } of tensors) {
    const bytes = data instanceof Uint8Array ? data : await data();
    await output.seek(offset, Deno.SeekMode.Start);
    for (let at = 0; at < bytes.byteLength;) at += await output.write(bytes.subarray(at));
    if (bytes !== data) release(bytes);
  }
  await output.sync();
}

/** Where the next tensor of a file may start. */
export function nextPage(offset: number): number {
  return Math.ceil(offset / PAGE) * PAGE;
}

/** Ranges in order, with those that overlap or touch made one. Empty ones are left out, unless all are. */
function merged(ranges: readonly [start: number, end: number][]): [start: number, end: number][] {
  const result: [number, number][] = [];
  for (const [start, end] of ranges.toSorted(([a], [b]) => a - b)) {
    const last = result.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}
