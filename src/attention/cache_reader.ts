/**
 * Attentions that read all keys and values from a cache: those of an encoder, in every call of a decoder but the first. The
 * call that fills the cache projects them, in another branch of a merged decoder or in another file, with the very same
 * query and output matrices. Joined to that site they are part of its block:
 *
 *     first call    x → query, e → key, value (→ present)    probabilities · value → output
 *     later calls   x → query, past = key, value             probabilities · value → output
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { release } from "../release.ts";
import type { HeadView } from "./heads.ts";
import type { CacheReader, Site } from "./site.ts";
import { judgeSpaces } from "./space.ts";
import { type Projection, storedName } from "./trace/projection.ts";
import type { Tracer } from "./trace/tracer.ts";
import { extractColumns, extractRows } from "./matrices.ts";

/** Sites that may fill a cache, and how their graph is read. */
export interface Fillers {
  readonly tracer: Tracer;
  readonly sites: readonly Site[];
  /** They stand in another file, where the same matrices may have other names. */
  readonly elsewhere: boolean;
}

/** The reader as a site, with the keys and values of the site that fills its cache; or why there is none. */
export function joinReader(tracer: Tracer, reader: CacheReader, fillers: Fillers): Site | string {
  const { path, ...common } = reader;
  const from = `its keys and values come from the cache ${reader.key.cache}`;
  const filler = fillers.sites.find((site) => fills(site, reader));
  if (filler === undefined) return `${from}, and no attention that was found fills it`;
  const key = cachedView(fillers.tracer, reader, { filler, name: "key" });
  const value = cachedView(fillers.tracer, reader, { filler, name: "value" });
  if (typeof key === "string" || typeof value === "string") return `${from}: ${typeof key === "string" ? key : value}`;
  const same = fillers.elsewhere
    ? equalMatrices(filler, reader, [fillers.tracer.folder, tracer.folder])
    : sameMatrices(filler, reader);
  if (!same) {
    return `${from}, and the attention that fills it has other query or output matrices`;
  }
  const parts = { ...common, key, value };
  return { ...parts, ...judgeSpaces(tracer, parts, path) };
}

/** Whether a site gives out the cache that a reader takes, by their names: `present.0.encoder.key` and `past_key_values.0.encoder.key`. */
function fills({ graph, present, query, value }: Site, reader: CacheReader): boolean {
  if (present.key === undefined || present.value === undefined) return false;
  const pairs = [[present.key, reader.key.cache], [present.value, reader.value.cache]] as const;
  return query.heads === reader.key.heads && query.headSize === reader.key.headSize &&
    value.headSize === reader.value.headSize &&
    pairs.every(([given, taken]) => entryOf(modelOutput(graph, given)) === entryOf(taken));
}

/** What follows `present` or `past_key_values` in a cache's name. */
function entryOf(name: string): string {
  return name.slice(name.indexOf(".") + 1);
}

/** The model's output that passes on an output of a branch. */
function modelOutput(graph: Graph, name: string): string {
  const { owner, parent } = graph;
  const passed = owner?.output[graph.proto.output.findIndex((output) => output.name === name)];
  return parent === undefined || passed === undefined ? name : modelOutput(parent, passed);
}

/** The filling site's view of keys or values, as the reader gets it. */
function cachedView(
  tracer: Tracer,
  reader: CacheReader,
  { filler, name }: { readonly filler: Site; readonly name: "key" | "value" },
): HeadView | string {
  const view = filler[name];
  if (view.inexact !== undefined) return `they were more than projected (${view.inexact})`;
  const given = tracer.trace(filler.graph, filler.present[name]!)!;
  return { ...view, scale: given.scale[0]! * reader[name].scale, past: reader[name].cache, fromCache: true };
}

/** Query and output matrices of the same names. */
function sameMatrices(filler: Site, reader: CacheReader): boolean {
  const same = (a: Projection, b: Projection): boolean => storedName(a) === storedName(b);
  return same(filler.query.projection, reader.query.projection) &&
    same(filler.output.projection, reader.output.projection) &&
    String(filler.query.columns) === String(reader.query.columns) &&
    String(filler.output.rows) === String(reader.output.rows);
}

/** Query and output matrices of the same numbers. */
function equalMatrices(filler: Site, reader: CacheReader, [there, here]: readonly [string, string]): boolean {
  const equal = (a: Float32Array, b: Float32Array): boolean => {
    const same = a.length === b.length && a.every((value, i) => value === b[i]);
    release(a, b);
    return same;
  };
  return equal(extractColumns(filler.query, there), extractColumns(reader.query, here)) &&
    equal(extractRows(filler.output, there), extractRows(reader.output, here));
}
