/**
 * com.microsoft.GroupQueryAttention in the small space. The operator takes keys and values of one size, a multiple of 8, so what it
 * does is written as plain operators: values in r2 numbers per head, keys in as many where they aren't rotated and else as they
 * stand in the operator's own cache, after their rotation. Where the cache holds z, keys and values of all positions are made of that.
 *
 *     q, k → rotate            K = past keys | k            V = past values | ṽ
 *     P = softmax(cap(scale · q Kᵀ) + mask)                 queries of a group stand below each other: no head is repeated
 *     context = P V
 *
 * Measured with ONNX Runtime 1.30 on two cores, 32 query and 8 key heads of 64 (r2 = 16), one token: 8 times the operator's speed
 * at 64 positions, 2.5 at 1,000, 5 at 2,000; with 14 and 2 heads 0.75, 2.4 and 4.3; a prompt of 512 tokens takes as long.
 *
 * @module
 */
import { isLatent, makesKeys } from "../form.ts";
import { type GroupQuery, readGroupQuery } from "../group_query.ts";
import type { FusedOperator } from "../site.ts";
import type { BlockForm } from "../types.ts";
import { writeCaches } from "./group_query_cache.ts";
import { freshAngles, rotate } from "./group_query_rotation.ts";
import { headsApart, operand } from "./operands.ts";
import { placesOf } from "./positions.ts";
import { contextOf, scoresOf, writeContext } from "./products.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Writes the operator's cache and context, and the output from it where values run reduced. */
export function writeGroupQuery(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const operator = readGroupQuery(fused.node);
  const { query, key, value } = at.site;
  const groups = form.keyValueHeads;
  const stream = (form.valueOutput === "reduced" ? value : query).projection.input;
  const used = isLatent(form, "key");
  const places = placesOf(at, operator, { stream, past: fused.past.key, used });
  const heads = (name: "query" | "key" | "value"): string => {
    const count = name === "query" ? query.heads : groups;
    const apart = headsApart(at, { joined: operand(at, { fused, form, name }), name, heads: count });
    const { rotary } = operator;
    if (rotary === undefined || name === "value") return apart;
    return rotate(at, apart, { heads: count, angles: freshAngles(at, rotary, places) });
  };
  const all = writeCaches(at, form, { operator, places, heads });
  // Expanded operands are the graph's own, scaled already.
  const before = form.queryKey === "reduced" ? query.scale * key.scale : 1;
  const queries = at.scaled(heads("query"), before * fused.scale, "scale");
  // Keys that the operator rotates are made of z with the cache.
  const made = makesKeys(form) && at.rotated.rotation.inside === true;
  const keys = { value: all.key, heads: groups, latent: isLatent(form, "key") && !made };
  const scores = scoresOf(at, form, { queries, keys });
  const values = { value: all.value, heads: groups, latent: isLatent(form, "value") };
  const p = probabilities(at, operator, { scores, mask: places.mask });
  writeContext(at, fused, form, contextOf(at, form, { probabilities: p, values }));
}

/** Softmax of scores [B, H, T, S], with what the operator does to them before. */
function probabilities(
  at: SiteWriter,
  { softcap, sink }: GroupQuery,
  { scores, mask }: { readonly scores: string; readonly mask: string },
): string {
  const bounded = softcap > 0 ? capped(at, scores, softcap) : scores;
  const masked = at.node("Add", [bounded, mask], { label: "scores.masked" });
  const attributes = { axis: -1n };
  if (sink === undefined) return at.node("Softmax", [masked], { label: "probabilities", attributes });
  // One more column, which takes its share of every row's sum and no value.
  const sizes = [at.size(masked, 0), at.size(masked, 1), at.size(masked, 2), at.writer.integers([1])];
  const shape = at.node("Concat", sizes, { label: "sink.shape", attributes: { axis: 0n } });
  const logits = sink === "zero"
    ? at.writer.scalar(0, at.elementType)
    : at.reshape(sink, [1, -1, 1, 1], { label: "sink.heads" });
  const column = at.node("Expand", [logits, shape], { label: "sink" });
  const wide = at.node("Concat", [masked, column], { label: "scores.sink", attributes });
  const shares = at.node("Softmax", [wide], { label: "probabilities.sink", attributes });
  const [zero, last, axis] = [0, -1, 3].map((number) => at.writer.integers([number])) as [string, string, string];
  return at.node("Slice", [shares, zero, last, axis], { label: "probabilities" });
}

/** Scores bent to stay below a bound. */
export function capped(at: SiteWriter, scores: string, softcap: number): string {
  const bound = at.writer.scalar(softcap, at.elementType);
  const bent = at.node("Tanh", [at.node("Div", [scores, bound], { label: "scores.share" })], { label: "scores.bent" });
  return at.node("Mul", [bent, bound], { label: "scores.capped" });
}
