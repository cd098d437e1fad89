/**
 * Grouped heads whose graph repeats them before it does anything else: the repeated value is written from factors with a head
 * for every query head, and whatever follows (rotation, cache) stays as it is.
 *
 *     before: k [B, T, G·h] → split → repeat [B, T, G, H/G, h] → …
 *     after:  k [B, T, H·h] from factors, as [B, T, G, H/G, h] → …
 *
 * @module
 */
import { floatTensor, sizeOf } from "../../onnx/tensor.ts";
import type { HeadView } from "../heads.ts";
import type { Trace } from "../trace/trace.ts";
import { stridesOf } from "../trace/value.ts";
import type { BlockForm } from "../types.ts";
import { fullHeads } from "./full_heads.ts";
import type { SiteWriter } from "./site_writer.ts";

/** A value that holds all H heads as the projection made them, but for one scale and a shift of every column. */
interface RepeatedValue {
  readonly name: string;
  /** Its sizes behind batch and positions, [H, h] or [G, H/G, h]. */
  readonly sizes: readonly number[];
  /** Whether heads stand before positions. */
  readonly headsFirst: boolean;
  /** For every position of every head, the column of the factors' product. */
  readonly index: readonly number[];
  readonly scale: number;
  readonly offset: Float32Array;
}

/**
 * Writes the first value on the way from the projection that holds all heads.
 *
 * @param path names of values from the product back to the projection.
 * @returns whether there is such a value; without one nothing is written.
 */
export function writeRepeated(
  at: SiteWriter,
  form: BlockForm,
  { name, path }: { readonly name: "key" | "value"; readonly path: readonly string[] },
): boolean {
  const view = at.site[name];
  const repeated = path.toReversed().map((value) => repeatedValue(at, view, value)).find((found) =>
    found !== undefined
  );
  if (repeated === undefined) return false;
  const { index, scale, offset, sizes, headsFirst } = repeated;
  const full = fullHeads(at, form, name);
  const ordered = index.every((from, i) => from === i) ? full : at.node("Gather", [full, at.writer.integers(index)], {
    label: `${name}.order`,
    attributes: { axis: -1n },
  });
  const scaled = at.scaled(ordered, scale, `${name}.scale`);
  const shifted = offset.some((number) => number !== 0)
    ? at.node("Add", [scaled, shift(at, name, offset)], { label: `${name}.bias` })
    : scaled;
  const label = `${name}.repeats`;
  if (!headsFirst) {
    at.reshape(shifted, [0, 0, ...sizes], { label, output: repeated.name });
    return true;
  }
  const split = at.reshape(shifted, [0, 0, ...sizes], { label });
  at.node("Transpose", [split], { label, output: repeated.name, attributes: { perm: [0n, 2n, 1n, 3n] } });
  return true;
}

function shift(at: SiteWriter, name: string, offset: Float32Array): string {
  const value = at.writer.fresh(`${at.site.anchor.name || at.site.scores}.${name}.bias`);
  at.writer.initializer(floatTensor(value, [offset.length], offset, at.elementType));
  return value;
}

/** Reads a value as all heads of a view, checked on every element of the probe. */
function repeatedValue(at: SiteWriter, view: HeadView, name: string): RepeatedValue | undefined {
  const trace = at.tracer.trace(at.graph, name);
  const input = at.tracer.value(at.graph, view.projection.input).shape;
  if (trace === undefined || trace.inexact !== undefined || input?.length !== 3) return undefined;
  const [batch, positions] = input as [number, number, number];
  const { heads, headSize } = view;
  const groups = at.groups(view);
  const layouts = [[heads, headSize], [groups, heads / groups, headSize]];
  for (const sizes of layouts) {
    if (String(trace.shape) !== String([batch, positions, ...sizes])) continue;
    const strides = stridesOf([batch, positions, heads, headSize]);
    return readElements(at, view, { name, trace, sizes, headsFirst: false, strides });
  }
  if (String(trace.shape) !== String([batch, heads, positions, headSize])) return undefined;
  const [b, i, t, j] = stridesOf(trace.shape) as [number, number, number, number];
  return readElements(at, view, { name, trace, sizes: [heads, headSize], headsFirst: true, strides: [b, t, i, j] });
}

function readElements(
  at: SiteWriter,
  view: HeadView,
  { name, trace, sizes, headsFirst, strides }: Pick<RepeatedValue, "name" | "sizes" | "headsFirst"> & {
    readonly trace: Trace;
    readonly strides: readonly number[];
  },
): RepeatedValue | undefined {
  const { heads, headSize, projection } = view;
  const source = at.tracer.sourcesOf(trace).find(({ node }) => node === projection.node);
  if (source === undefined) return undefined;
  const rows = sizeOf(source.shape.slice(0, -1));
  const positions = at.tracer.value(at.graph, projection.input).shape![1]!;
  const scale = trace.scale[0]!;
  const index: number[] = [];
  const offset = new Float32Array(heads * headSize);
  for (let i = 0; i < heads; i++) {
    const columns = [...view.columns.subarray(i * headSize, (i + 1) * headSize)];
    for (let j = 0; j < headSize; j++) {
      const first = i * strides[2]! + j * strides[3]!;
      const place = columns.indexOf(trace.origin[first]! - source.base);
      if (place === -1) return undefined;
      index.push(i * headSize + place);
      offset[i * headSize + j] = trace.offset[first]!;
      for (let row = 0; row < rows; row++) {
        const element = first + Math.floor(row / positions) * strides[0]! + row % positions * strides[1]!;
        const origin = source.base + row * projection.columns + columns[place]!;
        const same = trace.origin[element] === origin && trace.scale[element] === scale &&
          trace.offset[element] === trace.offset[first];
        if (!same) return undefined;
      }
    }
  }
  return { name, sizes, headsFirst, index, scale, offset };
}
