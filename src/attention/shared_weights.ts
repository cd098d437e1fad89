/**
 * Matrices that several places use: those of one block share all of theirs, and nothing else may read them.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { nodeName } from "../onnx/node.ts";
import { release } from "../release.ts";
import { extractColumns } from "./matrices.ts";
import type { Site } from "./site.ts";
import { type Projection, storedName } from "./trace/projection.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Places that use the same weights. */
type Sites = [Site, ...Site[]];

/**
 * Sites that use the same weights, together, in the order of the first of each. Those under one name do; so do those with one output
 * matrix whose other matrices are equal copies: where ONNX Runtime's optimiser fuses layers with shared weights (ALBERT), it packs query,
 * key and value of each anew.
 */
export function sitesByWeights({ folder }: Tracer, sites: readonly Site[]): Sites[] {
  const byOutput = new Map<string, Sites[]>();
  const groups: Sites[] = [];
  for (const site of sites) {
    const key = outputKey(site);
    const others = byOutput.get(key) ?? [];
    const same = others.find(([first]) => haveEqualInputs(first, site, folder));
    if (same === undefined) {
      const own: Sites = [site];
      groups.push(own);
      byOutput.set(key, [...others, own]);
      continue;
    }
    // Weights are read from the first place, so one that projects all of them comes before those that read a cache.
    if (same[0].key.fromCache) same.unshift(site);
    else same.push(site);
  }
  return groups;
}

const INPUTS = ["query", "key", "value"] as const;

function inputKey(site: Site, name: (typeof INPUTS)[number]): string {
  return `${storedName(site[name].projection)}:${site[name].columns}`;
}

function outputKey({ output }: Site): string {
  return `${storedName(output.projection)}:${output.rows}`;
}

/** Whether query, key and value of two sites have matrices of the same numbers. */
function haveEqualInputs(a: Site, b: Site, folder: string): boolean {
  return INPUTS.every((name) => {
    if (inputKey(a, name) === inputKey(b, name)) return true;
    const [left, right] = [a, b].map((site) => extractColumns(site[name], folder)) as [Float32Array, Float32Array];
    const equal = left.length === right.length && left.every((value, i) => value === right[i]);
    release(left, right);
    return equal;
  });
}

/** The projections that read each stored matrix. */
export function weightReaders(tracer: Tracer, graph: Graph): Map<string, Projection[]> {
  const readers = new Map<string, Projection[]>();
  for (const scope of graph.all()) {
    for (const node of scope.proto.node) {
      const projection = tracer.projection(scope, node);
      if (projection === undefined) continue;
      const name = storedName(projection);
      readers.set(name, [...readers.get(name) ?? [], projection]);
    }
  }
  return readers;
}

/**
 * Why a block must stay because a matrix of it is also used where no block was found (the cached branch of a merged decoder's
 * cross attention, say): with factors in one place and the original in the other, the model would contradict itself.
 */
export function sharedElsewhere(
  sites: readonly Site[],
  readers: ReadonlyMap<string, readonly Projection[]>,
): string | undefined {
  const own = sites.flatMap(({ query, key, value, output }) => [
    output.projection,
    ...[query, key, value].flatMap((view) => view.fromCache ? [] : view.projection),
  ]);
  const nodes = new Set(own.map(({ node }) => node));
  for (const projection of own) {
    const other = readers.get(storedName(projection))?.find(({ node }) => !nodes.has(node));
    if (other === undefined) continue;
    return `${nodeName(other.node)} uses its matrix ${
      storedName(projection)
    } too, and isn't part of a block that was found`;
  }
  return undefined;
}
