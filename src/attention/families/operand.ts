/**
 * Operands of the products of attention that is written out in plain operators.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { type CachedHeads, type HeadView, readCachedHeads, readHeads } from "../heads.ts";
import { broadcastTrace } from "../trace/trace.ts";
import type { Tracer } from "../trace/tracer.ts";

/** Reads an operand of a product whose leading dimensions, [batch, heads] or [batch · heads], are `heads`. */
export function readOperand(
  tracer: Tracer,
  graph: Graph,
  operand: { readonly name: string; readonly transposed: boolean; readonly heads: readonly number[] | undefined },
): HeadView | CachedHeads | string {
  const trace = tracer.trace(graph, operand.name);
  if (trace === undefined || operand.heads === undefined) return "its shape isn't known";
  // One key head may serve all query heads by broadcasting.
  const broadcast = broadcastTrace(trace, [...operand.heads, ...trace.shape.slice(-2)]);
  return readCachedHeads(tracer, broadcast, operand.transposed) ?? readHeads(tracer, broadcast, operand.transposed);
}
