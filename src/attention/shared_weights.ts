/**
 * Matrices that several places use: those of one block share all of theirs, and nothing else may read them.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { nodeName } from "../onnx/node.ts";
import type { Site } from "./site.ts";
import { type Projection, storedName } from "./trace/projection.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Sites with the same key use the very same weights. */
export function weightKey({ query, key, value, output }: Site): string {
  const views = [query, key, value].map((view) => `${storedName(view.projection)}:${view.columns}`);
  return [...views, `${storedName(output.projection)}:${output.rows}`].join("|");
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
