/**
 * Attention of the standard as its opsets 23 and 24 and ONNX Runtime 1.30's CPU provider have it: a soft cap, then masks, a softmax,
 * and contexts of zeros for queries that see no key.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto, operatorOf } from "../onnx/node.ts";
import { DataType } from "../onnx/tensor.ts";
import { isBoolean } from "./trace/boolean.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Inputs by their place: those that this module reads. */
const [MASK, PAST, COUNTED] = [3, 4, 6];

/** What one node does between its operands and its context. */
export interface StandardAttention {
  /** [tokens, keys], [heads or 1, tokens, keys] or [batch or 1, heads or 1, tokens, keys]. */
  readonly mask: { readonly name: string; readonly boolean: boolean } | undefined;
  /** int64 [batch]: how many keys of each row count, from the first on; undefined for all. */
  readonly counted: string | undefined;
  /** Token t sees keys up to t, counted from the past's end, or from the first that the counted ones of its row have before all tokens. */
  readonly causal: boolean;
  /** The scores' bound; 0 for none. */
  readonly softcap: number;
  /** Whether numbers of 16 bits take their softmax in 32. */
  readonly precise: boolean;
}

/** Whether a node is one. */
export function isStandardAttention(node: NodeProto): boolean {
  return operatorOf(node) === "Attention";
}

/** Reads a node. */
export function readStandardAttention(graph: Graph, node: NodeProto): StandardAttention {
  const mask = node.input[MASK] || undefined;
  const precision = intAttribute(node, "softmax_precision", 0);
  return {
    mask: mask === undefined ? undefined : { name: mask, boolean: isBoolean(graph, mask) === true },
    counted: node.input[COUNTED] || undefined,
    causal: intAttribute(node, "is_causal", 0) === 1,
    softcap: floatAttribute(node, "softcap", 0),
    precise: precision === DataType.FLOAT || precision === DataType.DOUBLE,
  };
}

/** Why a node can't be written as plain operators; undefined if it can. */
export function standardAttentionProblem(tracer: Tracer, graph: Graph, node: NodeProto): string | undefined {
  const { mask, causal } = readStandardAttention(graph, node);
  if (mask !== undefined && isBoolean(graph, mask.name) === undefined) {
    return `it isn't known whether the mask ${mask.name} of ${operatorOf(node)} is boolean`;
  }
  const positions = (name: string): string => String(tracer.runs.map((run) => run.value(graph, name).shape?.at(-2)));
  // The standard has a token alone see what it would among others, ONNX Runtime all keys.
  return causal && node.input[PAST] && positions(node.input[0]!) !== positions(node.input[1]!)
    ? `${operatorOf(node)} is causal, and has other new keys behind its past than tokens`
    : undefined;
}
