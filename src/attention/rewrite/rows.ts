/**
 * Rows of the output, which a block in the small space makes in the order [batch, positions], where the graph has them:
 *
 *     [batch, positions, d] → [batch, height, width, d]
 *     [batch, positions, d] → [positions, batch, d]
 *
 * @module
 */
import { type AxisSize, outputSizes } from "../axis_sizes.ts";
import { isEveryIndex } from "../matrices.ts";
import { isPlain } from "../rows.ts";
import type { SiteWriter } from "./site_writer.ts";

/** The output [batch, positions, d] with its rows where they stand in the graph's own; rows that are flat there may still be apart. */
export function inOwnRows(at: SiteWriter, value: string): string {
  const order = at.site.output.order!;
  if (isPlain(order)) return value;
  const { axes, batchAxes } = order;
  const sizes = outputSizes(at.tracer, at.site)!;
  const width = at.site.output.projection.columns;
  const apart = axes.length === 2 && batchAxes === 1 ? value : at.node("Reshape", [
    value,
    shapeOf(at, [...axes.map((axis) => sizes[axis]!), width]),
  ], { label: "output.axes" });
  if (isEveryIndex(axes)) return apart;
  const back = axes.map((_, axis) => axes.indexOf(axis));
  return at.transpose(apart, [...back, axes.length], "output.moved");
}

function shapeOf(at: SiteWriter, sizes: readonly AxisSize[]): string {
  const parts = sizes.map((size) =>
    typeof size === "number" ? at.writer.integers([size]) : at.size(at.site.query.projection.input, size.axis)
  );
  return at.node("Concat", parts, { label: "output.shape", attributes: { axis: 0n } });
}
