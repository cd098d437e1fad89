/**
 * com.microsoft.GroupQueryAttention as its documentation and ONNX Runtime 1.30's CPU provider have it: a cache whose rows are as
 * long as `seqlens_k` says, a causal mask by those lengths, and on request rotation, window, soft cap, additive bias and a
 * term of the softmax's sum that belongs to no key.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto, operatorOf } from "../onnx/node.ts";
import type { SoftmaxPath } from "./site.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Inputs by their place: those that this module reads. */
const [LENGTHS, TOTAL, COSINE, SINE, POSITIONS, BIAS, SINK, QUERY_NORM] = [5, 6, 7, 8, 9, 10, 11, 14];

/** What one node does between its operands and its context. */
export interface GroupQuery {
  /** int32 [batch]: for each row its positions in the cache after this call, less one. */
  readonly lengths: string;
  /** One int32: the largest of those numbers of positions. */
  readonly total: string;
  /** Rotation of queries and keys; undefined where they come as they are to be. */
  readonly rotary: Rotary | undefined;
  /** [batch or 1, heads or 1, tokens, total], added to the scores. */
  readonly bias: string | undefined;
  /** The scores' bound; 0 for none. */
  readonly softcap: number;
  readonly causal: boolean;
  /** How many positions a token sees, its own among them; undefined for all. */
  readonly window: number | undefined;
  /** Logits [heads] that take part in each row's sum without a key: `zero` where all are 0. */
  readonly sink: string | "zero" | undefined;
}

/** Tables [positions, half of what is rotated] and the positions [batch, tokens], counted by the operator where undefined. */
export interface Rotary {
  readonly cosine: string;
  readonly sine: string;
  readonly positions: string | undefined;
  readonly interleaved: boolean;
}

/** Whether a node is one. */
export function isGroupQuery(node: NodeProto): boolean {
  return operatorOf(node) === "com.microsoft.GroupQueryAttention";
}

/** Reads a node. */
export function readGroupQuery(node: NodeProto): GroupQuery {
  const input = (index: number): string | undefined => node.input[index] || undefined;
  const window = intAttribute(node, "local_window_size", -1);
  const smooth = intAttribute(node, "smooth_softmax", 0) === 1;
  return {
    lengths: node.input[LENGTHS]!,
    total: node.input[TOTAL]!,
    rotary: !rotates(node) ? undefined : {
      cosine: node.input[COSINE]!,
      sine: node.input[SINE]!,
      positions: input(POSITIONS),
      interleaved: intAttribute(node, "rotary_interleaved", 0) === 1,
    },
    bias: input(BIAS),
    softcap: floatAttribute(node, "softcap", 0),
    causal: intAttribute(node, "causal", 1) === 1,
    window: window < 0 ? undefined : window,
    sink: input(SINK) ?? (smooth ? "zero" : undefined),
  };
}

/** How many of a head's numbers are rotated: two for each column of the tables. */
export function rotatedNumbers(tracer: Tracer, graph: Graph, { cosine }: Rotary): number {
  return 2 * tracer.value(graph, cosine).shape![1]!;
}

/** Whether the operator rotates queries and keys itself. */
export function rotates(node: NodeProto): boolean {
  return intAttribute(node, "do_rotary", 0) === 1;
}

/** What happens to scores and probabilities inside. */
export function groupQueryPath(node: NodeProto): SoftmaxPath {
  const { softcap, sink } = readGroupQuery(node);
  const summand = sink === undefined ? undefined : sink === "zero" ? "smooth_softmax" : `head_sink ${sink}`;
  return { notAdditive: softcap > 0 ? "softcap" : summand, rowSumBroken: summand };
}

/** Why a node can't be written as plain operators; undefined if it can. */
export function groupQueryProblem(tracer: Tracer, graph: Graph, node: NodeProto): string | undefined {
  const operator = operatorOf(node);
  if (intAttribute(node, "sliding_window_cache", 0) === 1) return `${operator} keeps its cache as a sliding window`;
  if (node.input[QUERY_NORM]) return `${operator} norms queries and keys inside`;
  const { window, rotary } = readGroupQuery(node);
  if (window === 0) return `${operator} has a window of no positions`;
  if (rotary !== undefined && tracer.value(graph, rotary.cosine).shape?.length !== 2) {
    return `${operator} rotates by ${rotary.cosine}, whose shape isn't known`;
  }
  return undefined;
}
