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
import { headSizesDiffer, isLatent, isReduced, makesKeys } from "../form.ts";
import { isMultiHead } from "../multi_head.ts";
import type { FusedOperator } from "../site.ts";
import { isStandardAttention } from "../standard_attention.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { writeCache } from "./caches.ts";
import { coreOf, latentContext, latentScores } from "./latent.ts";
import { latentCache } from "./latent_cache.ts";
import { multiHeadSoftmax } from "./multi_head_softmax.ts";
import { keepsOutside } from "./fused.ts";
import { headsApart, operand, operandHeads } from "./operands.ts";
import { cachedHeads, writeOutputFactors } from "./reduced.ts";
import { rotatedScores } from "./rotated.ts";
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
  const scores = scoresOf(at, form, at.scaled(queries, before * fused.scale, "scale"));
  const { probabilities, seeing }: WrittenSoftmax = isStandardAttention(fused.node)
    ? standardSoftmax(at, scores)
    : { probabilities: multiHeadSoftmax(at, scores), seeing: undefined };
  const all = contextOf(at, form, probabilities);
  const context = seeing === undefined
    ? all
    : at.node("Where", [seeing, all, at.writer.scalar(0, at.elementType)], { label: "context.seen" });
  const reduced = form.valueOutput === "reduced";
  if (fused.headsFirst && !reduced) {
    at.node("Identity", [context], { label: "context", output: at.site.context });
    return;
  }
  const joined = at.reshape(at.transpose(context, [0, 2, 1, 3], "context.positions"), [0, 0, -1], {
    label: "context.joined",
    output: reduced ? undefined : at.site.context,
  });
  if (reduced) writeOutputFactors(at, form, joined);
}

/** Products of queries [B, H, T, ·] with the keys of all positions, [B, H, T, S]. */
function scoresOf(at: SiteWriter, form: BlockForm, queries: string): string {
  if (isLatent(form, "key")) {
    const z = latentCache(at, form, "key");
    const core = makesKeys(form) ? coreOf(at, form, "key") : undefined;
    return stacked(at, queries, {
      groups: form.keyValueHeads,
      label: "scores",
      multiply: (query) =>
        core === undefined
          ? latentScores(at, form, { query, z })
          : rotatedScores(at, form, { query, z, core, output: undefined }),
    });
  }
  const { value, heads } = allHeads(at, form, "key");
  const across = at.transpose(value, [0, 1, 3, 2], "key.across");
  return stacked(at, queries, {
    groups: heads,
    label: "scores",
    multiply: (query) => at.matmul(query, across, { label: "scores" }),
  });
}

/** Products of probabilities [B, H, T, S] with the values of all positions, [B, H, T, ·]. */
function contextOf(at: SiteWriter, form: BlockForm, probabilities: string): string {
  const label = "context";
  if (isLatent(form, "value")) {
    const z = latentCache(at, form, "value");
    const multiply = (rows: string): string => latentContext(at, form, { probabilities: rows, z });
    return stacked(at, probabilities, { groups: form.keyValueHeads, label, multiply });
  }
  const { value, heads } = allHeads(at, form, "value");
  return stacked(at, probabilities, { groups: heads, label, multiply: (rows) => at.matmul(rows, value, { label }) });
}

/** A product with fewer heads than there are queries', [B, H, T, ·]: those of a group stand below each other, [B, G, H/G·T, ·]. */
function stacked(
  at: SiteWriter,
  value: string,
  { groups, label, multiply }: {
    readonly groups: number;
    readonly label: string;
    readonly multiply: (grouped: string) => string;
  },
): string {
  const { heads } = at.site.query;
  if (groups === heads) return multiply(value);
  const product = multiply(at.reshape(value, [0, groups, -1, 0], { label: `${label}.groups` }));
  return at.reshape(product, [0, heads, -1, 0], { label: `${label}.heads` });
}

/** Keys or values of all positions, [B, heads, S, ·], in the cache where there is one. */
function allHeads(
  at: SiteWriter,
  form: BlockForm,
  name: CachedName,
): { readonly value: string; readonly heads: number } {
  if (isReduced(form, name)) return { value: cachedHeads(at, name, form), heads: form.keyValueHeads };
  const fused = at.site.fused!;
  const heads = operandHeads(at, form, name);
  const fresh = (): string => apart(at, { fused, form, name, heads });
  const present = at.site.present[name];
  const inside = fused.past[name] !== undefined || (present !== undefined && fused.node.output.includes(present));
  const width = { heads, size: at.site[name].headSize };
  return { value: inside ? writeCache(at, name, fresh, width) : fresh(), heads };
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
