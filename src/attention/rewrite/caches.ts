/**
 * Small caches: what a rewritten block takes from the calls before and gives to the next, under the names that the model's
 * own cache has, with fewer numbers.
 *
 * @module
 */
import type { ValueInfoProto } from "../../onnx/node.ts";
import { withDimension } from "../../onnx/value_info.ts";
import { pastOf } from "../cache.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { retypeOutput } from "./retype.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Second and fourth size of a cache [B, heads, positions, size]; dynamic ones by name. */
export interface CacheWidth {
  readonly heads: number;
  readonly size: number | string;
}

/**
 * New positions behind the past ones, along the third dimension; the result is what the model gives out too. Where another
 * call fills the cache there are none, and `fresh` isn't made.
 */
export function writeCache(at: SiteWriter, name: CachedName, fresh: () => string, width: CacheWidth): string {
  const past = pastOf(at.site, name);
  const { fromCache } = at.site[name];
  resizeCache(at, name, width);
  if (past === undefined) return given(at, name, (output) => named(at, fresh(), { label: `${name}.present`, output }));
  const typed = typeOf(at.graph.input(past)) === at.elementType
    ? past
    : cast(at, past, { label: `${name}.past.cast`, to: at.elementType });
  if (fromCache) return typed;
  const all = [typed, fresh()];
  return given(
    at,
    name,
    (output) => at.node("Concat", all, { label: `${name}.all`, attributes: { axis: 2n }, output }),
  );
}

/** A cache of no numbers, with as many positions as another, `all`. */
export function writeEmptyCache(at: SiteWriter, name: CachedName, all: string): void {
  resizeCache(at, name, { heads: 1, size: 0 });
  if (at.site[name].fromCache || at.site.present[name] === undefined) return;
  const [zero, axis] = [0, 3].map((number) => at.writer.integers([number]));
  given(at, name, (output) => at.node("Slice", [all, zero!, zero!, axis!], { label: `${name}.nothing`, output }));
}

/** The type of a cache with other heads, in the dimension `at`, and numbers, two behind it. */
export function withWidth(info: ValueInfoProto, { heads, size }: CacheWidth, at = 1): ValueInfoProto {
  return withDimension(withDimension(info, at, heads), at + 2, size);
}

/** Gives past and present of key or value new sizes. */
export function resizeCache(at: SiteWriter, name: CachedName, width: CacheWidth): void {
  const past = pastOf(at.site, name);
  const present = at.site.present[name];
  const resized = (info: ValueInfoProto): ValueInfoProto => withWidth(info, width);
  if (past !== undefined) at.writer.retype(at.graph.scopeOf(past)!, resized(at.graph.input(past)!));
  if (present !== undefined) retypeOutput(at, present, resized);
}

/**
 * Has a value made under the present's name, where the model gives it out. Models in half precision may give float32 all the
 * same: then that is made from the value.
 */
function given(at: SiteWriter, name: CachedName, make: (output: string | undefined) => string): string {
  const present = at.site.present[name];
  const type = typeOf(at.graph.proto.output.find((info) => info.name === present));
  if (present === undefined || type === undefined || type === at.elementType) return make(present);
  const value = make(undefined);
  cast(at, value, { label: `${name}.present.cast`, to: type, output: present });
  return value;
}

/** The value under another name, where that is asked for. */
function named(
  at: SiteWriter,
  value: string,
  { label, output }: { readonly label: string; readonly output: string | undefined },
): string {
  return output === undefined ? value : at.node("Identity", [value], { label, output });
}

/** Element type of an input or output that says one. */
function typeOf(info: ValueInfoProto | undefined): number | undefined {
  return info?.type?.tensorType?.elemType || undefined;
}

function cast(
  at: SiteWriter,
  input: string,
  { to, ...options }: { readonly label: string; readonly to: number; readonly output?: string },
): string {
  return at.node("Cast", [input], { ...options, attributes: { to: BigInt(to) } });
}

/** G heads of ρ numbers, from the width G·ρ of the projection's last factor. */
export function headsWidth(at: SiteWriter, form: BlockForm, name: CachedName): CacheWidth {
  const [, rank] = String(at.slot(`${name}.b`).shape.at(-1)!).split("*");
  return { heads: form.keyValueHeads, size: rank! };
}
