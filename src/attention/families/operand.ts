/**
 * Operands of the products of attention that is written out in plain operators: heads from a projection, as they are or normed, or from
 * a cache.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { normedView } from "../head_norm.ts";
import { type CachedHeads, type HeadView, readCachedHeads, readHeads } from "../heads.ts";
import { batchesFirst } from "../trace/fused_matmul.ts";
import { broadcastTrace } from "../trace/trace.ts";
import type { Tracer } from "../trace/tracer.ts";

/** Reads an operand of a product whose leading dimensions, [batch, heads] or [batch · heads], are `heads`. */
export function readOperand(
  tracer: Tracer,
  graph: Graph,
  operand: {
    readonly name: string;
    readonly transposed: boolean;
    /** The product takes the first dimension behind the heads: it holds [positions, heads, size]. */
    readonly batchesFirst?: boolean;
    readonly heads: readonly number[] | undefined;
    /** Whether a norm without gain may stand before it. */
    readonly mayBeNormed?: true;
  },
): HeadView | CachedHeads | string {
  const stored = tracer.trace(graph, operand.name);
  if (stored === undefined || operand.heads === undefined) return "its shape isn't known";
  const trace = operand.batchesFirst ? batchesFirst(stored) : stored;
  // One key head may serve all query heads by broadcasting.
  const broadcast = broadcastTrace(trace, [...operand.heads, ...trace.shape.slice(-2)]);
  const cached = readCachedHeads(tracer, broadcast, operand.transposed);
  if (cached !== undefined) return cached;
  const view = readHeads(tracer, broadcast, operand.transposed);
  if (!operand.mayBeNormed || typeof view === "string" || view.inexact === undefined) return view;
  const read = (): HeadView | string => readHeads(tracer, { ...broadcast, inexact: undefined }, operand.transposed);
  return normedView(tracer, graph, { name: operand.name, inexact: view, read }) ?? view;
}
