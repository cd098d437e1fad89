/**
 * What the standard's Attention does between scores and contexts, in plain operators:
 *
 *     P = softmax(cap(scores) + mask)          context = 0 for tokens that see no key
 *
 * A key isn't seen where the mask says so (false, −∞ or the lowest number), where it stands behind those that count, or behind the
 * token in a causal operator.
 *
 * @module
 */
import { DataType } from "../../onnx/tensor.ts";
import { readStandardAttention, type StandardAttention } from "../standard_attention.ts";
import { capped } from "./group_query.ts";
import { hiding, Sight } from "./sight.ts";
import type { SiteWriter } from "./site_writer.ts";

/** A softmax and what its contexts are to be then. */
export interface WrittenSoftmax {
  /** [B, H, T, S]. */
  readonly probabilities: string;
  /** Whether a token sees any key, to be broadcast to [B, H, T, 1]; undefined where all do. */
  readonly seeing: string | undefined;
}

/** Writes the softmax of scores [B, H, T, S], which have the operator's scale. */
export function standardSoftmax(at: SiteWriter, scores: string): WrittenSoftmax {
  const operator = readStandardAttention(at.graph, at.site.fused!.node);
  const { softcap, precise } = operator;
  const bounded = softcap > 0 ? capped(at, scores, softcap) : scores;
  const { mask, seeing } = maskOf(at, operator, scores);
  const masked = mask === undefined ? bounded : at.node("Add", [bounded, mask], { label: "scores.masked" });
  const cast = (value: string, to: number): string =>
    at.node("Cast", [value], { label: "probabilities.cast", attributes: { to: BigInt(to) } });
  const widens = precise && at.elementType !== DataType.FLOAT;
  const shares = at.node("Softmax", [widens ? cast(masked, DataType.FLOAT) : masked], {
    label: "probabilities",
    attributes: { axis: -1n },
  });
  return { probabilities: widens ? cast(shares, at.elementType) : shares, seeing };
}

/** What is added to the scores, and who sees anything then. */
function maskOf(
  at: SiteWriter,
  { mask, counted, causal }: StandardAttention,
  scores: string,
): { readonly mask: string | undefined; readonly seeing: string | undefined } {
  if (mask === undefined && counted === undefined && !causal) return { mask: undefined, seeing: undefined };
  const sight = new Sight(at, scores);
  const { steps } = sight;
  const key = `${mask?.name} ${counted} ${causal} ${at.elementType}`;
  const written = sight.shared(`mask ${key}`, () => {
    const visible = [
      ...counted === undefined
        ? causal ? [sight.below(sight.ends())] : []
        : [sight.below(causal ? sight.countedEnds(counted) : at.reshape(counted, [-1, 1, 1, 1], { label: "counted" }))],
      ...mask?.boolean ? [mask.name] : [],
    ];
    const hidden = visible.length === 0
      ? []
      : [hiding(at, visible.reduce((all, each) => steps.node("And", [all, each], "seen.all")), -Infinity)];
    const summands = [...hidden, ...mask === undefined || mask.boolean ? [] : [mask.name]];
    return summands.reduce((sum, each) => steps.node("Add", [sum, each], "mask.all"));
  });
  // A causal token always sees itself or, without a past, the first key.
  if (mask === undefined && counted === undefined) return { mask: written, seeing: undefined };
  const seeing = sight.shared(`seeing ${key}`, () => {
    const lowest = at.elementType === DataType.FLOAT16 ? -65504 : -3.4028234663852886e38;
    const best = steps.node("ReduceMax", [written, at.writer.integers([-1])], "mask.best", { keepdims: 1n });
    return steps.node("Greater", [best, at.writer.scalar(lowest, at.elementType)], "seeing");
  });
  return { mask: written, seeing };
}
