/**
 * Attention and MultiHeadAttention of com.microsoft and the standard's Attention as plain operators, for caches that the operators don't take: z in place of
 * keys or values, and in a MultiHeadAttention heads of two sizes, or small ones that the graph puts behind a past itself.
 *
 *     K = past keys | k            V = past values | ṽ            or z of all positions in the place of either
 *     P = softmax(scale · q Kᵀ, with what the operator does)      queries of a group stand below each other: no head is repeated
 *     context = P V
 *
 * @module
 */
import { isCached } from "../cache.ts";
import { headSizesDiffer, isLatent, isReduced } from "../form.ts";
import { isMultiHead } from "../multi_head.ts";
import type { FusedOperator } from "../site.ts";
import { isStandardAttention } from "../standard_attention.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { writeCache } from "./caches.ts";
import { latentCache } from "./latent_cache.ts";
import { multiHeadSoftmax } from "./multi_head_softmax.ts";
import { keepsOutside } from "./fused.ts";
import { headsApart, operand, operandHeads } from "./operands.ts";
import { type AllPositions, contextOf, scoresOf, writeContext } from "./products.ts";
import { cachedHeads } from "./reduced.ts";
import type { SiteWriter } from "./site_writer.ts";
import { standardSoftmax, type WrittenSoftmax } from "./standard_softmax.ts";

const PARTS = ["key", "value"] as const;

/** Whether an operator can't take what a form makes of its keys and values. */
export function runsPlain(at: SiteWriter, fused: FusedOperator, form: BlockForm): boolean {
  if (form.latent !== undefined && form.latent.length > 0) return true;
  if (!isMultiHead(fused.node)) return false;
  const outside = PARTS.some((name) => isReduced(form, name) && keepsOutside(at, fused, name));
  return outside || (fused.past.key !== undefined && headSizesDiffer(form));
}

/** Writes the operator's cache and context, and the output from it where values run reduced. */
export function writePlain(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const { query, key } = at.site;
  // Expanded operands are the graph's own, scaled already.
  const before = form.queryKey === "reduced" ? query.scale * key.scale : 1;
  const queries = apart(at, { fused, form, name: "query", heads: query.heads });
  const scaled = at.scaled(queries, before * fused.scale, "scale");
  const scores = scoresOf(at, form, { queries: scaled, keys: allPositions(at, form, "key") });
  const { probabilities, seeing }: WrittenSoftmax = isStandardAttention(fused.node)
    ? standardSoftmax(at, scores)
    : { probabilities: multiHeadSoftmax(at, scores), seeing: undefined };
  const context = contextOf(at, form, { probabilities, values: allPositions(at, form, "value") });
  const seen = seeing === undefined
    ? context
    : at.node("Where", [seeing, context, at.writer.scalar(0, at.elementType)], { label: "context.seen" });
  writeContext(at, fused, form, seen);
}

/** Keys or values of all positions, in the cache where there is one. */
function allPositions(at: SiteWriter, form: BlockForm, name: CachedName): AllPositions {
  const groups = form.keyValueHeads;
  if (isLatent(form, name)) return { value: latentCache(at, form, name), heads: groups, latent: true };
  if (isReduced(form, name)) return { value: cachedHeads(at, name, form), heads: groups, latent: false };
  const fused = at.site.fused!;
  const heads = operandHeads(at, form, name);
  const fresh = (): string => apart(at, { fused, form, name, heads });
  const inside = isCached(at.site, name) && !keepsOutside(at, fused, name);
  const width = { heads, size: at.site[name].headSize };
  return { value: inside ? writeCache(at, name, fresh, width) : fresh(), heads, latent: false };
}

/** An operand of the operator with heads before positions. */
function apart(
  at: SiteWriter,
  { fused, form, name, heads }: {
    readonly fused: FusedOperator;
    readonly form: BlockForm;
    readonly name: "query" | CachedName;
    readonly heads: number;
  },
): string {
  const joined = operand(at, { fused, form, name });
  return fused.headsFirst ? joined : headsApart(at, { joined, name, heads });
}
