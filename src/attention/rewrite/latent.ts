/**
 * The latent cache: z = x U1, r1 numbers a token, from which keys and values of all heads are made again in every call. With
 * C the factor `key.b` or `value.b` of the heads, [G, r1, ρ], Z the cache of all S positions and T new tokens, a product can
 * be taken in two orders:
 *
 *     expand   scores = q̃ (Z C_K)ᵀ      context = P (Z C_V)       S·r1·G·ρ + T·S·H·ρ multiplications each
 *     absorb   scores = (q̃ C_Kᵀ) Zᵀ     context = (P Z) C_V       T·H·r1·ρ + T·S·H·r1
 *
 * Absorbing, as in DeepSeek-V2's multi-head latent attention (arXiv 2405.04434, 2.1.2), wins for few tokens, and expanding
 * for many: they are even at T·H·(r1 − ρ) = G·r1·ρ, for r1 well above ρ at T = G·ρ/H. In ONNX Runtime on a CPU the times
 * cross there too (at ρ = 16 and G = H between 16 and 18 tokens, for r1 of 128 and of 256), so that is the rule: expand if
 * T·H > G·ρ. A site without a past has all its tokens at hand, and expands. Keys that are rotated are always expanded: see
 * `rotated.ts`.
 *
 * Absorbed scores are computed as (Z (q̃ C_Kᵀ)ᵀ)ᵀ: matrix products copy their second operand into blocks, and the few rows of
 * queries are much smaller than the cache.
 *
 * @module
 */
import { pastOf } from "../cache.ts";
import type { BlockForm, CachedName } from "../types.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Products of queries [B, G, H/G·T, ρ] with the keys of all positions: [B, G, H/G·T, S], under a name where `output` is one. */
export function latentScores(
  at: SiteWriter,
  form: BlockForm,
  { query, z, output }: { readonly query: string; readonly z: string; readonly output?: string | undefined },
): string {
  const { all, core, many } = operands(at, form, { name: "key", z });
  const expand = (name?: string): string => {
    const keys = at.matmul(all, core, { label: "key.all" });
    return at.matmul(query, at.transpose(keys, [0, 1, 3, 2], "key.across"), { label: "scores.expanded", output: name });
  };
  const absorb = (): string => {
    const absorbed = at.matmul(query, at.transpose(core, [0, 2, 1], "key.core.across"), { label: "query.absorbed" });
    const rows = at.reshape(absorbed, [0, 1, -1, 0], { label: "query.rows" });
    const across = at.transpose(rows, [0, 1, 3, 2], "query.columns");
    const columns = at.matmul(all, across, { label: "scores.absorbed" });
    const product = at.transpose(columns, [0, 1, 3, 2], "scores.rows");
    return at.reshape(product, [0, form.keyValueHeads, -1, 0], { label: "scores.groups" });
  };
  return many === undefined
    ? expand(output)
    : at.choose(many, { ifTrue: () => expand(), ifFalse: absorb }, { label: "scores", output });
}

/** Products of probabilities [B, G, H/G·T, S] with the values of all positions: [B, G, H/G·T, ρ]. */
export function latentContext(
  at: SiteWriter,
  form: BlockForm,
  { probabilities, z }: { readonly probabilities: string; readonly z: string },
): string {
  const { all, core, many } = operands(at, form, { name: "value", z });
  const expand = (): string =>
    at.matmul(probabilities, at.matmul(all, core, { label: "value.all" }), { label: "context.expanded" });
  const absorb = (): string => {
    const rows = at.reshape(probabilities, [0, 1, -1, 0], { label: "probabilities.rows" });
    const product = at.matmul(rows, all, { label: "context.latent" });
    const split = at.reshape(product, [0, form.keyValueHeads, -1, 0], { label: "context.groups" });
    return at.matmul(split, core, { label: "context.absorbed" });
  };
  return many === undefined ? expand() : at.choose(many, { ifTrue: expand, ifFalse: absorb }, { label: "context" });
}

/** What both orders read. */
interface Operands {
  /** z of all positions, [B, 1, S, r1]. */
  readonly all: string;
  /** [G, r1, ρ]. */
  readonly core: string;
  /** Whether the call has enough tokens to expand; undefined where it always does. */
  readonly many: string | undefined;
}

function operands(
  at: SiteWriter,
  form: BlockForm,
  { name, z }: { readonly name: CachedName; readonly z: string },
): Operands {
  const [all, core] = [z, coreOf(at, form, name)];
  if (pastOf(at.site, name) === undefined) return { all, core, many: undefined };
  const tokens = at.size(at.site.query.projection.input, 1);
  const heads = at.writer.integers([at.site.query.heads]);
  const rows = at.node("Mul", [tokens, heads], { label: "query.rows.count" });
  const columns = at.size(at.factor(`${name}.b`), 1);
  return { all, core, many: at.node("Greater", [rows, columns], { label: `${name}.many` }) };
}

/** The heads' parts of a last factor, [G, r1, ρ]. */
export function coreOf(at: SiteWriter, form: BlockForm, name: CachedName): string {
  const split = at.reshape(at.factor(`${name}.b`), [0, form.keyValueHeads, -1], { label: `${name}.core.heads` });
  return at.transpose(split, [1, 0, 2], `${name}.core`);
}
