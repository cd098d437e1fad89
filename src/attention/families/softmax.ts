/**
 * Attention written out in plain operators, anchored at what can't vary:
 *
 *     query · keyᵀ → (scale, mask, bias…) → Softmax → (dropout, casts…) → · value → … → output projection
 *
 * How heads are split, scaled and moved is read from element traces (`trace/`), not from node patterns.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, intAttribute, intsAttribute, nodeName, type NodeProto, operatorOf } from "../../onnx/node.ts";
import { type CachedHeads, type HeadView, readCachedHeads, readHeads } from "../heads.ts";
import { readOutput } from "../output.ts";
import type { OutputView, Verdict } from "../site.ts";
import { judgeSpaces } from "../space.ts";
import { isElementwise } from "../trace/arithmetic.ts";
import { isMovement } from "../trace/movement.ts";
import { broadcastTrace } from "../trace/trace.ts";
import type { Tracer } from "../trace/tracer.ts";

/** Longest way, in nodes, from a product to its softmax and back. */
const REACH = 40;

/** Judges one Softmax node. */
export function findAtSoftmax(tracer: Tracer, graph: Graph, softmax: NodeProto): Verdict {
  const axis = lastAxisProblem(tracer, graph, softmax);
  if (axis !== undefined) return { reason: axis };
  const scores = findScores(tracer, graph, softmax.input[0]!);
  if (typeof scores === "string") return { reason: scores };
  const context = findContext(tracer, graph, softmax.output[0]!);
  if (typeof context === "string") return { reason: context };
  const value = readOperand(tracer, graph, {
    name: context.node.input[1]!,
    transposed: false,
    heads: tracer.value(graph, context.node.output[0]!).shape?.slice(0, -2),
  });
  if (typeof value === "string") return { reason: `the value can't be followed: ${value}` };
  const output = readOutput(tracer, graph, {
    context: context.node.output[0]!,
    heads: scores.query.heads,
    headSize: value.headSize,
  });
  if (typeof output === "string") return { reason: output };
  const problem = sizeProblem({ ...scores, value, output });
  if (problem !== undefined) return { reason: problem };
  const { query, key, notAdditive } = scores;
  const path = { notAdditive, rowSumBroken: context.broken };
  const common = {
    graph,
    anchor: softmax,
    query,
    output,
    scores: scores.node.output[0]!,
    probabilities: context.node.input[0]!,
    context: context.node.output[0]!,
  };
  if ("cache" in key && "cache" in value) return { reader: { ...common, key, value, path } };
  if ("cache" in key || "cache" in value) return { reason: "one of key and value is read from a cache alone" };
  const parts = { ...common, key, value };
  return { site: { ...parts, ...judgeSpaces(tracer, parts, path) } };
}

interface Scores {
  readonly node: NodeProto;
  readonly query: HeadView;
  readonly key: HeadView | CachedHeads;
  /** An operator after the product that isn't indifferent to a constant per row; undefined if there is none. */
  readonly notAdditive: string | undefined;
}

function lastAxisProblem(tracer: Tracer, graph: Graph, softmax: NodeProto): string | undefined {
  const shape = tracer.value(graph, softmax.input[0]!).shape;
  if (shape === undefined) return "the shape of its input isn't known: an operator before it isn't understood";
  const axis = intAttribute(softmax, "axis", -1);
  if (axis === -1 || axis === shape.length - 1) return undefined;
  return `it runs over axis ${axis} of [${shape}], attention's runs over the last`;
}

/** Walks up from the softmax to the product of a query and a key. */
function findScores(tracer: Tracer, graph: Graph, start: string): Scores | string {
  const pending: { name: string; notAdditive: string | undefined; depth: number }[] = [
    { name: start, notAdditive: undefined, depth: 0 },
  ];
  const seen = new Set<string>();
  const found: Scores[] = [];
  let reason: string | undefined;
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
  // ONNX Runtime's optimiser puts a transposition of the key and the scale into its own product.
  if (["transA", "transBatchA", "transBatchB"].some((name) => intAttribute(node, name, 0) === 1)) {
    return `${node.opType} transposes its query or its batches`;
  }
  const across = intAttribute(node, "transB", 0) === 0;
  const query = readOperand(tracer, graph, { name: node.input[0]!, transposed: false, heads });
  if (typeof query === "string") return `the query can't be followed: ${query}`;
  if ("cache" in query) return `the query can't be followed: it comes from the input ${query.cache}`;
  const key = readOperand(tracer, graph, { name: node.input[1]!, transposed: across, heads });
  if (typeof key === "string") return `the key can't be followed: ${key}`;
  return { node, query: { ...query, scale: query.scale * floatAttribute(node, "alpha", 1) }, key };
}

/** Reads an operand of a product whose leading dimensions, [batch, heads] or [batch · heads], are `heads`. */
function readOperand(
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

/** Walks down from the softmax to the product with the value. */
function findContext(
  tracer: Tracer,
  graph: Graph,
  start: string,
): { node: NodeProto; broken: string | undefined } | string {
  const pending: { name: string; broken: string | undefined; depth: number }[] = [
    { name: start, broken: undefined, depth: 0 },
  ];
  const seen = new Set<string>();
  const found: { node: NodeProto; broken: string | undefined }[] = [];
  while (pending.length > 0) {
    const { name, broken, depth } = pending.shift()!;
    if (seen.has(name) || depth > REACH) continue;
    seen.add(name);
    for (const { node, index, graph: user } of graph.uses(name)) {
      if (user !== graph) continue;
      if (node.opType === "MatMul" && index === 0) {
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

/** Operators after which the rows of the softmax may no longer sum to one. A Where may guard rows of NaN, but no more. */
function rowSumProblem(graph: Graph, node: NodeProto): string | undefined {
  const keeps = ["Cast", "Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "IsNaN", "Flatten"];
  const guards = node.opType === "Where" && graph.producer(node.input[0]!)?.opType === "IsNaN";
  return keeps.includes(node.opType) || guards
    ? undefined
    : `${node.opType} (${node.name || node.output[0]}) after the softmax`;
}

function sizeProblem(
  { query, key, value, output }: {
    readonly query: HeadView;
    readonly key: HeadView | CachedHeads;
    readonly value: HeadView | CachedHeads;
    readonly output: OutputView;
  },
): string | undefined {
  if (query.heads !== key.heads || query.heads !== value.heads) {
    return `query, key and value have ${query.heads}, ${key.heads} and ${value.heads} heads`;
  }
  if (query.headSize !== value.headSize) {
    return `heads of query and key have size ${query.headSize}, those of value ${value.headSize}: ` +
      `they don't stack into one tensor`;
  }
  const widths = [query, key, value].flatMap((view) => "cache" in view ? [] : view.projection.rows);
  if (new Set([...widths, output.projection.columns]).size > 1) {
    return `query, key and value read rows of ${widths.join(", ")} numbers and the output has ` +
      `${output.projection.columns}: they don't stack into one tensor`;
  }
  return undefined;
}
