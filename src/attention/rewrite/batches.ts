/**
 * Rows as a block in the small space takes them, where the graph has them in another order:
 *
 *     [batch, height, width, r] → [batch, positions, r]
 *     [positions, batch, r] → [batch, positions, r]
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { sizesOf } from "../axis_sizes.ts";
import { isEveryIndex } from "../matrices.ts";
import { isPlain, type RowOrder } from "../rows.ts";
import type { Tracer } from "../trace/tracer.ts";
import type { ModelWriter } from "./writer.ts";

/** What writes into the graph of one site. */
interface Writing {
  readonly graph: Graph;
  readonly tracer: Tracer;
  readonly writer: ModelWriter;
  node(opType: string, inputs: readonly string[], options: Labelled): string;
  transpose(input: string, perm: readonly number[], label: string): string;
  size(value: string, axis: number): string;
  once(key: string, make: () => string): string;
}

interface Labelled {
  readonly label: string;
  readonly attributes?: Readonly<Record<string, bigint>>;
}

/** A value [..., r] as [batch, positions, r]: `like` has the same leading axes, in sizes that the probes know. */
export function inBatches(
  at: Writing,
  value: string,
  { order, like }: { readonly order: RowOrder; readonly like: string },
): string {
  if (isPlain(order)) return value;
  const { axes, batchAxes } = order;
  return at.once(`rows ${axes} ${batchAxes} of ${value}`, () => {
    const moved = isEveryIndex(axes) ? value : at.transpose(value, [...axes, axes.length], "rows.moved");
    if (axes.length === 2 && batchAxes === 1) return moved;
    const counts = [axes.slice(0, batchAxes), axes.slice(batchAxes)].map((group) => countOf(at, like, group));
    const shape = [...counts, at.writer.integers([-1])];
    const target = at.node("Concat", shape, { label: "rows.shape", attributes: { axis: 0n } });
    return at.node("Reshape", [moved, target], { label: "rows" });
  });
}

/** The product of some axes' sizes, as a list of one number. */
function countOf(at: Writing, value: string, axes: readonly number[]): string {
  const sizes = sizesOf(at.tracer, at.graph, value);
  const fixed = axes.every((axis) => sizes[axis]![0] === sizes[axis]![1]);
  if (fixed) return at.writer.integers([axes.reduce((product, axis) => product * sizes[axis]![0], 1)]);
  return axes.map((axis) => at.size(value, axis))
    .reduce((product, size) => at.node("Mul", [product, size], { label: "rows.count" }));
}
