/**
 * The way from a softmax down to the product with the value.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { nodeName, type NodeProto } from "../../onnx/node.ts";
import { isElementwise } from "../trace/arithmetic.ts";
import { operandMoves } from "../trace/fused_matmul.ts";
import { isMovement } from "../trace/movement.ts";
import type { Tracer } from "../trace/tracer.ts";
import { REACH } from "./scores.ts";

/** The product of probabilities and value. */
export interface Context {
  readonly node: NodeProto;
  /** An operator before it after which rows of the softmax may not sum to one; undefined if there is none. */
  readonly broken: string | undefined;
}

/** Walks down from the softmax to the product with the value. */
export function findContext(
  tracer: Tracer,
  graph: Graph,
  start: string,
): Context | string {
  const pending: { name: string; broken: string | undefined; depth: number }[] = [
    { name: start, broken: undefined, depth: 0 },
  ];
  const seen = new Set<string>();
  const found: Context[] = [];
  while (pending.length > 0) {
    const { name, broken, depth } = pending.shift()!;
    if (seen.has(name) || depth > REACH) continue;
    seen.add(name);
    for (const { node, index, graph: user } of graph.uses(name)) {
      if (user !== graph) continue;
      if (multiplies(node) && index === 0) {
        if (tracer.projection(graph, node) === undefined) found.push({ node, broken });
      } else if (isMovement(node) || isElementwise(node)) {
        for (const output of node.output) {
          pending.push({ name: output, broken: broken ?? rowSumProblem(graph, node), depth: depth + 1 });
        }
      }
    }
  }
  const [first] = found;
  if (first === undefined) return "its result doesn't reach a product with a value";
  // Tables of relative positions may be multiplied too, but no second value.
  const values = found.filter(({ node }) => {
    const trace = tracer.trace(graph, node.input[1]!);
    return trace !== undefined && tracer.sourcesOf(trace).some(({ kind }) => kind === "projection");
  });
  if (values.length < 2) return first;
  return `its result meets ${values.length} values, in ${values.map(({ node }) => nodeName(node)).join(" and ")}`;
}

/** Whether a node multiplies its left operand, as it is, with another. */
function multiplies(node: NodeProto): boolean {
  const [{ batchesFirst, transposed }] = operandMoves(node);
  return (node.opType === "MatMul" || node.opType === "FusedMatMul") && !batchesFirst && !transposed;
}

/** Operators after which the rows of the softmax may no longer sum to one. A Where may guard rows of NaN, but no more. */
function rowSumProblem(graph: Graph, node: NodeProto): string | undefined {
  const keeps = ["Cast", "Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "IsNaN", "Flatten"];
  const guards = node.opType === "Where" && graph.producer(node.input[0]!)?.opType === "IsNaN";
  return keeps.includes(node.opType) || guards
    ? undefined
    : `${node.opType} (${node.name || node.output[0]}) after the softmax`;
}
