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
import { floatAttribute, intAttribute, type NodeProto } from "../../onnx/node.ts";
import type { CachedHeads, HeadView } from "../heads.ts";
import { readOutput } from "../output.ts";
import type { OutputView, Verdict } from "../site.ts";
import { judgeSpaces } from "../space.ts";
import { operandMoves } from "../trace/fused_matmul.ts";
import type { Tracer } from "../trace/tracer.ts";
import { findContext } from "./context.ts";
import { readOperand } from "./operand.ts";
import { findScores } from "./scores.ts";

/** Judges one Softmax node. */
export function findAtSoftmax(tracer: Tracer, graph: Graph, softmax: NodeProto): Verdict {
  const axis = lastAxisProblem(tracer, graph, softmax);
  if (axis !== undefined) return { reason: axis };
  const scores = findScores(tracer, graph, softmax.input[0]!);
  if (typeof scores === "string") return { reason: scores };
  const context = findContext(tracer, graph, softmax.output[0]!);
  if (typeof context === "string") return { reason: context };
  const multiplied = readOperand(tracer, graph, {
    name: context.node.input[1]!,
    ...operandMoves(context.node)[1],
    heads: tracer.value(graph, context.node.output[0]!).shape?.slice(0, -2),
    mayBeNormed: true,
  });
  if (typeof multiplied === "string") return { reason: `the value can't be followed: ${multiplied}` };
  const value = { ...multiplied, scale: multiplied.scale * floatAttribute(context.node, "alpha", 1) };
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

function lastAxisProblem(tracer: Tracer, graph: Graph, softmax: NodeProto): string | undefined {
  const shape = tracer.value(graph, softmax.input[0]!).shape;
  if (shape === undefined) return "the shape of its input isn't known: an operator before it isn't understood";
  const axis = intAttribute(softmax, "axis", -1);
  if (axis === -1 || axis === shape.length - 1) return undefined;
  return `it runs over axis ${axis} of [${shape}], attention's runs over the last`;
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
