/**
 * The way from a softmax up to the product of a query and a key.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, intsAttribute, nodeName, type NodeProto, operatorOf } from "../../onnx/node.ts";
import type { CachedHeads, HeadView } from "../heads.ts";
import { isElementwise } from "../trace/arithmetic.ts";
import { operandMoves } from "../trace/fused_matmul.ts";
import { isMovement } from "../trace/movement.ts";
import type { Tracer } from "../trace/tracer.ts";
import { readOperand } from "./operand.ts";
import { joinedScores } from "./joined_scores.ts";

/** Longest way, in nodes, from a product to its softmax and back. */
export const REACH = 40;

/** The product of a query and a key. */
export interface Scores {
  readonly node: NodeProto;
  readonly query: HeadView;
  readonly key: HeadView | CachedHeads;
  /** An operator after the product that isn't indifferent to a constant per row; undefined if there is none. */
  readonly notAdditive: string | undefined;
}

/** Walks up from the softmax to the product of a query and a key. */
export function findScores(tracer: Tracer, graph: Graph, start: string): Scores | string {
  const pending: { name: string; notAdditive: string | undefined; depth: number }[] = [
    { name: start, notAdditive: undefined, depth: 0 },
  ];
  const seen = new Set<string>();
  const found: Scores[] = [];
  let reason: string | undefined;
  let joined: string | undefined;
  let projected: NodeProto | undefined;
  let other: NodeProto | undefined;
  while (pending.length > 0) {
    const { name, notAdditive, depth } = pending.pop()!;
    const node = graph.producer(name);
    if (node === undefined || seen.has(name) || depth > REACH) continue;
    seen.add(name);
    if (tracer.projection(graph, node) !== undefined) {
      projected ??= node;
      continue;
    }
    if (node.opType === "MatMul" || node.opType === "FusedMatMul") {
      const read = readScores(tracer, graph, node);
      if (typeof read === "string") reason = read;
      else found.push({ ...read, notAdditive });
      continue;
    }
    if (!isMovement(node) && !isElementwise(node)) {
      other ??= node;
      continue;
    }
    if (node.opType === "Concat") joined ??= joinedScores(tracer, graph, node);
    const data = node.opType === "Where" ? [1, 2] : isMovement(node) ? [0] : node.input.map((_, i) => i);
    for (const i of data.toReversed()) {
      const bend = additiveProblem(tracer, graph, { node, operand: i });
      pending.push({ name: node.input[i]!, notAdditive: notAdditive ?? bend, depth: depth + 1 });
    }
  }
  // Beside the tokens' keys, queries may meet projected positions: those come from another stream than they do.
  const scores =
    found.find(({ query, key }) => "projection" in key && key.projection.stream === query.projection.stream) ??
      found[0];
  if (scores !== undefined) return scores;
  if (joined !== undefined) return joined;
  if (reason !== undefined) return reason;
  if (projected === undefined) {
    const from = other === undefined ? "" : `: it comes from ${operatorOf(other)} (${nodeName(other)})`;
    return `no product of two projections leads to it${from}`;
  }
  const where = `the projection ${nodeName(projected)} (of a router or a classifier, say)`;
  return `it follows ${where}, not a product of a query and a key`;
}

function readScores(
  tracer: Tracer,
  graph: Graph,
  node: NodeProto,
): Omit<Scores, "notAdditive"> | string {
  const heads = tracer.value(graph, node.output[0]!).shape?.slice(0, -2);
  const [left, right] = operandMoves(node);
  const query = readOperand(tracer, graph, { name: node.input[0]!, ...left, heads });
  if (typeof query === "string") return `the query can't be followed: ${query}`;
  if ("cache" in query) return `the query can't be followed: it comes from the input ${query.cache}`;
  const key = readOperand(tracer, graph, { name: node.input[1]!, ...right, transposed: !right.transposed, heads });
  if (typeof key === "string") return `the key can't be followed: ${key}`;
  return { node, query: { ...query, scale: query.scale * floatAttribute(node, "alpha", 1) }, key };
}

/**
 * Whether adding a constant to a row of operand `operand` only adds a constant to the row of the result (or scales it),
 * which softmax ignores; otherwise the operator's name.
 */
function additiveProblem(
  tracer: Tracer,
  graph: Graph,
  { node, operand }: { node: NodeProto; operand: number },
): string | undefined {
  const what = `${node.opType} (${node.name || node.output[0]}) between the scores and the softmax`;
  if (isMovement(node)) return keepsRows(tracer, graph, node) ? undefined : what;
  if (["Add", "Sum", "Where"].includes(node.opType)) return undefined;
  const other = node.input[1 - operand];
  if (node.opType === "Sub" && operand === 0) return undefined;
  if (node.opType === "Mul" || (node.opType === "Div" && operand === 0)) {
    const shape = other === undefined ? undefined : tracer.value(graph, other).shape;
    if (shape !== undefined && (shape.at(-1) ?? 1) === 1) return undefined;
  }
  if (node.opType === "Max" && other !== undefined) {
    const floor = tracer.value(graph, other).data?.[0];
    if (floor !== undefined && floor < -1e4) return undefined; // masked entries only
  }
  return what;
}

/** Whether a movement leaves every row of scores a row: joined with another column (a sink, say), it has more terms. */
function keepsRows(tracer: Tracer, graph: Graph, node: NodeProto): boolean {
  const [before, after] = [node.input[0]!, node.output[0]!].map((name) => tracer.value(graph, name).shape);
  if (before === undefined || after === undefined || before.at(-1) !== after.at(-1)) return false;
  const perm = intsAttribute(node, "perm");
  return node.opType !== "Transpose" || perm?.at(-1) === before.length - 1;
}
