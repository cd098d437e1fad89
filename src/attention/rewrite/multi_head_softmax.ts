/**
 * What com.microsoft.MultiHeadAttention and com.microsoft.Attention do between scores and contexts, in plain operators:
 *
 *     P = softmax(scores + bias + filter of keys that don't count)          behind any token but the last in a causal operator: −∞
 *
 * @module
 */
import { DataType } from "../../onnx/tensor.ts";
import { type MultiHead, readMultiHead } from "../multi_head.ts";
import { hiding, Sight } from "./sight.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Writes the softmax of scores [B, H, T, S], which have the operator's scale. */
export function multiHeadSoftmax(at: SiteWriter, scores: string): string {
  const operator = readMultiHead(at.tracer, at.graph, at.site.fused!);
  const mask = maskOf(at, operator, scores);
  const masked = mask === undefined ? scores : at.node("Add", [scores, mask], { label: "scores.masked" });
  return at.node("Softmax", [masked], { label: "probabilities", attributes: { axis: -1n } });
}

/** What is added to the scores; undefined where nothing is. */
function maskOf(at: SiteWriter, { mask, filter, bias, causal }: MultiHead, scores: string): string | undefined {
  const sight = new Sight(at, scores);
  const { steps } = sight;
  // Numbers of 16 bits end at −65504, and scores are added to it.
  const low = at.elementType === DataType.FLOAT16 ? Math.max(filter, -60000) : filter;
  const padding = (): string => hiding(at, countsOf(at, sight, mask!), low);
  const later = (): string => {
    const last = steps.node("Equal", [sight.next(), sight.size(2)], "tokens.last");
    const rows = at.reshape(last, [-1, 1], { label: "tokens.last.rows" });
    return hiding(at, steps.node("Or", [sight.below(sight.ends()), rows], "seen.causal"), -Infinity);
  };
  const summands: readonly [key: string, make: () => string][] = [
    ...mask === undefined ? [] : [[`padding ${mask.name} ${low}`, padding] as const],
    ...causal ? [["later", later] as const] : [],
    ...bias === undefined ? [] : [[bias, () => bias] as const],
  ].map(([key, make]) => [`${key} ${at.elementType}`, make]);
  const [first, ...others] = summands;
  if (first === undefined) return undefined;
  let [key] = first;
  let sum = sight.shared(key, first[1]);
  for (const [name, make] of others) {
    const left = sum;
    key += `, ${name}`;
    sum = sight.shared(key, () => steps.node("Add", [left, sight.shared(name, make)], "mask.all"));
  }
  return sum;
}

/** Whether keys count: [B, 1, 1, S] or [B, 1, T, S]. */
function countsOf(at: SiteWriter, sight: Sight, { name, kind }: NonNullable<MultiHead["mask"]>): string {
  const { steps } = sight;
  const zero = at.writer.integers([0]);
  if (kind === "keys" || kind === "pairs") {
    const tokens = kind === "keys" ? at.writer.integers([1]) : sight.size(2);
    const shape = steps.node("Concat", [at.writer.integers([0, 1]), tokens, sight.size(3)], "padding.shape", {
      axis: 0n,
    });
    const counts = steps.node("Greater", [steps.int64(name), zero], "padding.counts");
    return steps.node("Reshape", [counts, shape], "padding.rows");
  }
  const ends = steps.node("Slice", [steps.int64(name), zero, sight.size(0)], "ends");
  return sight.below(at.reshape(ends, [-1, 1, 1, 1], { label: "ends.rows" }));
}
