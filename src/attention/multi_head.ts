/**
 * com.microsoft.MultiHeadAttention, and com.microsoft.Attention, which projects first and then does the same, as their documentation and
 * ONNX Runtime 1.30's CPU provider have them: a bias added to the scores, a lower number for padded keys, and on request no sight of later
 * tokens.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto, operatorOf } from "../onnx/node.ts";
import type { FusedOperator } from "./site.ts";
import type { Tracer } from "./trace/tracer.ts";

/**
 * What an int32 mask holds: `ends` [batch], numbers of keys that count in each row (other numbers may follow); `keys` [batch, keys] or `pairs`
 * [batch, tokens, keys], above 0 where a key counts.
 */
export type MaskKind = "ends" | "keys" | "pairs";

/** What one node does between its operands and its context. */
export interface MultiHead {
  readonly mask: { readonly name: string; readonly kind: MaskKind } | undefined;
  /** What is added to the scores of keys that don't count. */
  readonly filter: number;
  /** [batch or 1, heads or 1, tokens, keys], added to the scores. */
  readonly bias: string | undefined;
  /** Token t sees keys up to t, counted from the past's end; the last one sees all. */
  readonly causal: boolean;
}

/** Whether a node is a MultiHeadAttention. */
export function isMultiHead(node: NodeProto): boolean {
  return operatorOf(node) === "com.microsoft.MultiHeadAttention";
}

/** Whether a node is a com.microsoft.Attention. */
export function isProjecting(node: NodeProto): boolean {
  return operatorOf(node) === "com.microsoft.Attention";
}

/** Reads an operator that has no `multiHeadProblem`. */
export function readMultiHead(tracer: Tracer, graph: Graph, { node, mask, attentionBias }: FusedOperator): MultiHead {
  return {
    mask: mask === undefined ? undefined : { name: mask, kind: maskKind(tracer, graph, { node, mask }) as MaskKind },
    filter: floatAttribute(node, "mask_filter_value", -10000),
    bias: attentionBias,
    causal: intAttribute(node, "unidirectional", 0) === 1,
  };
}

/**
 * Why an operator can't be written as plain ones; undefined if it can. A com.microsoft.Attention that isn't `readable` can't be written as
 * MultiHeadAttention either, which takes fewer masks.
 */
export function multiHeadProblem(
  tracer: Tracer,
  graph: Graph,
  { node, mask }: Pick<FusedOperator, "node" | "mask">,
): { readonly reason: string; readonly readable: boolean } | undefined {
  const kind = mask === undefined ? "none" : maskKind(tracer, graph, { node, mask });
  if (kind !== "unsure" && kind !== undefined) return undefined;
  const { shape } = tracer.value(graph, mask!);
  const what = shape === undefined ? "no known shape" : `shape [${shape}]`;
  const reason = `the mask ${mask} of ${operatorOf(node)} has ${what}, not a MultiHeadAttention's`;
  return { reason, readable: kind === "unsure" };
}

function maskKind(
  tracer: Tracer,
  graph: Graph,
  { node, mask }: { readonly node: NodeProto; readonly mask: string },
): MaskKind | "unsure" | undefined {
  const shapes = tracer.runs.map((run) => run.value(graph, mask).shape);
  const batches = tracer.runs.map((run) => run.value(graph, node.input[0]!).shape?.[0] ?? NaN);
  const counts = (of: (batch: number) => number): boolean =>
    shapes.every((shape, i) => shape?.length === 1 && shape[0] === of(batches[i]!));
  const [shape] = shapes;
  if (shape === undefined) return "unsure";
  // com.microsoft.Attention may be told in which key each row begins, too, and a mask of one column stands for none there.
  if (shape.length === 1) {
    if (!isProjecting(node) || counts((batch) => batch) || counts((batch) => 3 * batch + 2)) return "ends";
    return counts((batch) => 2 * batch) ? undefined : "unsure";
  }
  const columns = shapes.every((shape) => shape?.at(-1) === 1);
  return columns ? undefined : ([undefined, undefined, "keys", "pairs"] as const)[shape.length];
}
