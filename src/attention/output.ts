/**
 * Finds the output projection behind a context, and which of its rows meets which position of which head.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import type { NodeProto } from "../onnx/node.ts";
import { sizeOf } from "../onnx/tensor.ts";
import { carriedFrom } from "./carried.ts";
import { type RowOrder, rowOrder } from "./rows.ts";
import type { OutputView } from "./site.ts";
import { isElementwise } from "./trace/arithmetic.ts";
import { isMovement } from "./trace/movement.ts";
import type { Projection } from "./trace/projection.ts";
import type { Trace } from "./trace/trace.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Longest way, in nodes, from the context to the output projection. */
const REACH = 40;

/** Which context to follow. */
interface Wanted {
  /** Name of the context, [..., positions, head size]. */
  readonly context: string;
  readonly heads: number;
  readonly headSize: number;
}

/** Reads the output projection of a context, or says why there is none. */
export function readOutput(tracer: Tracer, graph: Graph, wanted: Wanted): OutputView | string {
  const projection = projectionBehind(tracer, graph, wanted.context);
  if (projection === undefined) return "its context doesn't reach an output projection";
  const trace = tracer.trace(graph, projection.stream);
  if (trace === undefined) return "the shape of the output projection's input isn't known";
  const width = wanted.heads * wanted.headSize;
  if (projection.rows !== width) {
    return `the output projection has ${projection.rows} rows for ${wanted.heads} heads of ${wanted.headSize}`;
  }
  const map = trace.inexact === undefined ? exactRows(tracer, trace, wanted) : inexactRows(tracer, graph, {
    ...wanted,
    stream: projection.stream,
    inexact: trace.inexact,
  });
  if (typeof map === "string") return map;
  const { places, ...rest } = map;
  const order = places && outputOrder(tracer.value(graph, projection.input).shape!.slice(0, -1), places);
  return { projection, ...rest, ...(order === undefined ? {} : { order }), ...biasBehind(tracer, projection) };
}

function projectionBehind(tracer: Tracer, graph: Graph, context: string): Projection | undefined {
  const pending = [{ name: context, depth: 0 }];
  const seen = new Set<string>();
  while (pending.length > 0) {
    const { name, depth } = pending.shift()!;
    if (seen.has(name) || depth > REACH) continue;
    seen.add(name);
    const [projection] = tracer.projectionsOf(graph, name);
    if (projection !== undefined) return projection;
    for (const { node, graph: user } of graph.uses(name)) {
      if (user === graph && passes(node)) {
        pending.push(...node.output.map((output) => ({ name: output, depth: depth + 1 })));
      }
    }
  }
  return undefined;
}

function passes(node: NodeProto): boolean {
  return isMovement(node) || isElementwise(node) || node.opType.endsWith("Normalization");
}

/** What is read off a path, and the row of the projection's input at every position, batch after batch. */
type Rows = Pick<OutputView, "rows" | "scale" | "inexact"> & { readonly places?: Places };

/** Where positions stand among the rows. */
interface Places {
  readonly rows: Int32Array;
  readonly batch: number;
}

/** The order of the leading axes; rows that were flattened before may be those of [batch, positions] or [positions, batch]. */
function outputOrder(lead: readonly number[], places: Places): RowOrder | undefined {
  const { batch, rows } = places;
  const sizes = [batch, rows.length / batch];
  return rowOrder(lead, places) ??
    (lead.length === 1 ? rowOrder(sizes, places) ?? rowOrder(sizes.toReversed(), places) : undefined);
}

/** Reads rows off the trace of the projection's input, and checks every element of the probe. */
function exactRows(tracer: Tracer, trace: Trace, wanted: Wanted): Rows | string {
  const source = tracer.sourceOf(trace.origin[0]!).source;
  if (trace.origin[0]! < 0 || source.name !== wanted.context) return "the output projection reads something else too";
  const read = rowsOf(trace.origin.map((origin) => origin - source.base), source.shape, wanted);
  if (typeof read === "string") return read;
  const { rows, places } = read;
  const scale = trace.scale[0]!;
  if (trace.scale.some((each) => each !== scale) || trace.offset.some((each) => each !== 0)) {
    return { rows, scale: 1, inexact: "its elements are scaled or shifted differently" };
  }
  return { rows, scale, inexact: undefined, ...(places === undefined ? {} : { places }) };
}

/** Rows where a norm or a gate stands between: it must keep every element of the context in a place of its own. */
function inexactRows(
  tracer: Tracer,
  graph: Graph,
  { stream, inexact, ...wanted }: Wanted & { readonly stream: string; readonly inexact: string },
): Rows | string {
  const { context } = wanted;
  const carried = carriedFrom(tracer, graph, { name: stream, context });
  const refused = (because: string): string =>
    `between the context and its output projection, ${inexact}, and ${because}`;
  if (carried === undefined) return refused("what becomes of its elements can't be followed");
  if (typeof carried === "string") return refused(carried);
  const read = rowsOf(carried.index, tracer.value(graph, context).shape!, wanted);
  if (typeof read === "string") return refused(read);
  return { rows: read.rows, scale: 1, inexact: `${carried.changedBy} changes it` };
}

/** Rows of the output matrix by the context's element that each element of the projection's input is. */
function rowsOf(
  elements: Int32Array,
  shape: readonly number[],
  { heads, headSize }: Wanted,
): { readonly rows: Int32Array; readonly places?: Places } | string {
  const width = heads * headSize;
  const positions = shape.at(-2)!;
  // A fused operator gives its context as [batch, positions, heads · head size] already.
  const joined = shape.length === 3 && shape[2] === width;
  const rows = new Int32Array(width).fill(-1);
  const places = new Int32Array(sizeOf(shape) / width).fill(-1);
  let scattered = false;
  for (let element = 0; element < elements.length; element++) {
    const index = elements[element]!;
    if (index < 0) return "the output projection reads something else too";
    const { slot, position } = joined
      ? { slot: index % width, position: Math.floor(index / width) }
      : placeOf(index, { heads, headSize, positions });
    const row = element % width;
    if (rows[slot] === -1) rows[slot] = row;
    const place = Math.floor(element / width);
    if (places[position] === -1) places[position] = place;
    if (places[position] !== place) scattered = true;
    if (rows[slot] !== row) return "the heads of its context aren't joined position by position";
  }
  if (rows.includes(-1)) return "its output projection doesn't read all of its context";
  return { rows, ...(scattered ? {} : { places: { rows: places, batch: places.length / positions } }) };
}

/** Where an element of a context [batch, heads, positions, head size] belongs: head and place in it, batch and position. */
function placeOf(
  index: number,
  { heads, headSize, positions }: { heads: number; headSize: number; positions: number },
): { slot: number; position: number } {
  const t = Math.floor(index / headSize) % positions;
  const m = Math.floor(index / (headSize * positions));
  return { slot: (m % heads) * headSize + index % headSize, position: Math.floor(m / heads) * positions + t };
}

/** The bias of a projection: Gemm's own, or an Add of d constants right behind it. */
function biasBehind(tracer: Tracer, projection: Projection): Pick<OutputView, "bias" | "result"> {
  const { graph, node, columns } = projection;
  const own = node.output[0]!;
  const uses = graph.uses(own).filter((use) => use.node.opType !== "Shape");
  const add = uses.length === 1 && uses[0]!.node.opType === "Add" && !graph.isOutput(own) ? uses[0]!.node : undefined;
  const other = add?.input.find((name) => name !== own);
  const shape = other === undefined ? undefined : tracer.value(graph, other);
  const biased = shape?.constant === true && shape.shape?.at(-1) === columns &&
    shape.shape.every((size, i, all) => size === 1 || i === all.length - 1);
  const result = biased ? add!.output[0]! : own;
  const trace = tracer.trace(graph, result);
  const offset = trace?.offset.subarray(0, columns);
  const bias = offset?.some((value) => value !== 0) ? Float32Array.from(offset) : undefined;
  return { bias, result };
}
