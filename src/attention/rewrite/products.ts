/**
 * Scores and contexts of an operator that is written as plain ones, from heads of keys and values or from z:
 *
 *     scores = q Kᵀ [B, H, T, S]          context = P V [B, H, T, ·]
 *
 * @module
 */
import { makesKeys } from "../form.ts";
import type { FusedOperator } from "../site.ts";
import type { BlockForm } from "../types.ts";
import { coreOf, latentContext, latentScores } from "./latent.ts";
import { writeOutputFactors } from "./reduced.ts";
import { rotatedScores } from "./rotated.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Keys or values of all positions: heads [B, heads, S, ·], or z [B, 1, S, r] that so many are made of. */
export interface AllPositions {
  readonly value: string;
  readonly heads: number;
  readonly latent: boolean;
}

/** Products of queries [B, H, T, ·] with keys, [B, H, T, S]. */
export function scoresOf(
  at: SiteWriter,
  form: BlockForm,
  { queries, keys: { value, heads, latent } }: { readonly queries: string; readonly keys: AllPositions },
): string {
  const label = "scores";
  const core = latent && makesKeys(form) ? coreOf(at, form, "key") : undefined;
  const across = latent ? undefined : at.transpose(value, [0, 1, 3, 2], "key.across");
  return stacked(at, queries, {
    heads,
    label,
    multiply: (query) =>
      across !== undefined
        ? at.matmul(query, across, { label })
        : core !== undefined
        ? rotatedScores(at, form, { query, z: value, core, output: undefined })
        : latentScores(at, form, { query, z: value }),
  });
}

/** Products of probabilities [B, H, T, S] with values, [B, H, T, ·]. */
export function contextOf(
  at: SiteWriter,
  form: BlockForm,
  { probabilities, values: { value, heads, latent } }: {
    readonly probabilities: string;
    readonly values: AllPositions;
  },
): string {
  const label = "context";
  return stacked(at, probabilities, {
    heads,
    label,
    multiply: (rows) =>
      latent ? latentContext(at, form, { probabilities: rows, z: value }) : at.matmul(rows, value, { label }),
  });
}

/** The output from a context [B, H, T, ·] of small values, or the context in the operator's own place. */
export function writeContext(at: SiteWriter, fused: FusedOperator, form: BlockForm, context: string): void {
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

/** A product with fewer heads than queries have: those of a group stand below each other, [B, heads, H/heads·T, ·], so that none is repeated. */
function stacked(
  at: SiteWriter,
  value: string,
  { heads, label, multiply }: {
    readonly heads: number;
    readonly label: string;
    readonly multiply: (grouped: string) => string;
  },
): string {
  const all = at.site.query.heads;
  if (heads === all) return multiply(value);
  const product = multiply(at.reshape(value, [0, heads, -1, 0], { label: `${label}.groups` }));
  return at.reshape(product, [0, all, -1, 0], { label: `${label}.heads` });
}
