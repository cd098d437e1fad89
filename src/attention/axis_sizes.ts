/**
 * Sizes of a stream's leading axes, and where those of the output can be taken from before the output is there.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import type { SiteParts } from "./site.ts";
import type { Tracer } from "./trace/tracer.ts";

/** What the size of an axis is: a number, that of an axis of the queries' input, or −1: what is left. */
export type AxisSize = number | { readonly axis: number };

/**
 * The sizes of the leading axes of the output projection's input, from what is there before the attention; undefined where more than
 * one isn't.
 */
export function outputSizes(tracer: Tracer, { graph, query, output }: SiteParts): readonly AxisSize[] | undefined {
  const wanted = sizesOf(tracer, graph, output.projection.input);
  const known = sizesOf(tracer, graph, query.projection.input);
  const sizes = wanted.map(([first, second]): AxisSize => {
    if (first === second) return first;
    const axes = known.flatMap(([a, b], axis) => a === first && b === second ? axis : []);
    // Of two axes that the probes can't tell apart, either may be meant.
    return axes.length === 1 ? { axis: axes[0]! } : -1;
  });
  return sizes.filter((size) => size === -1).length > 1 ? undefined : sizes;
}

/** The sizes of a value's leading axes under both probes. */
export function sizesOf(tracer: Tracer, graph: Graph, name: string): [number, number][] {
  const [first, second] = tracer.runs.map((run) => run.value(graph, name).shape ?? []);
  return first!.slice(0, -1).map((size, axis) => [size, second![axis] ?? NaN]);
}
