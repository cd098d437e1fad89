/**
 * The reduced space: scores, values and contexts in ρ = r2 numbers per head. Where the block has a cache, that holds ρ
 * numbers per head too, or the latent z, which keys of full size can be made from as well.
 *
 * @module
 */
import { floatAttribute } from "../../onnx/node.ts";
import { isCached } from "../cache.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { isLatent } from "../form.ts";
import { outputScale } from "../matrices.ts";
import { isPlain } from "../rows.ts";
import { headsWidth, writeCache } from "./caches.ts";
import { coreOf, latentContext, latentScores } from "./latent.ts";
import { latentCache } from "./latent_cache.ts";
import { writeHeadNorm } from "./head_norm.ts";
import { elementTypeAt } from "../trace/element_type.ts";
import { queryType, rotatedScores } from "./rotated.ts";
import { inOwnRows } from "./rows.ts";
import type { SiteWriter } from "./site_writer.ts";

/**
 * Scores from small queries and keys, in place of the graph's product. Keys get no bias: its terms are constant over keys, and
 * softmax drops them. With G < H key heads, the queries of a group stand below each other: [B, G, H/G·T, ρ]. Where the graph casts
 * queries and keys before their product (to float32, in a model of float16), so does this.
 */
export function writeReducedQueryKey(at: SiteWriter, form: BlockForm): void {
  const { query, key } = at.site;
  const scaledQuery = at.scaled(at.projectQuery(form.query), query.scale * key.scale, "scale");
  const split = at.reshape(scaledQuery, [0, 0, query.heads, -1], { label: "query.heads" });
  const to = typeOf(at, at.site.scores);
  writeScores(at, form, {
    query: at.transpose(split, [0, 2, 1, 3], "query"),
    product: (grouped, output) => {
      if (!isLatent(form, "key")) {
        const [left, right] = [grouped, keysAcross(at, form)].map((value) =>
          typed(at, value, { to, label: "scores.cast" })
        );
        return at.matmul(left!, right!, { label: "scores", output });
      }
      const asIs = to === at.elementType;
      const z = latentCache(at, form, "key");
      const product = latentScores(at, form, { query: grouped, z, output: asIs ? output : undefined });
      return asIs ? product : typed(at, product, { to, label: "scores.cast", output });
    },
  });
}

/** Scores from the graph's own queries and keys of full size that are made from z. */
export function writeLatentKeys(at: SiteWriter, form: BlockForm): void {
  const { query: { heads }, scores } = at.site;
  const product = at.graph.producer(scores)!;
  const operand = product.input[0]!;
  const query = at.rank(operand) === 3 ? splitHeads(at, operand, heads) : operand;
  const alpha = floatAttribute(product, "alpha", 1);
  const scaled = alpha === 1
    ? query
    : at.node("Mul", [query, at.writer.scalar(alpha, queryType(at))], { label: "scale" });
  writeScores(at, form, {
    query: scaled,
    product: (grouped, output) => {
      const z = latentCache(at, form, "key");
      return rotatedScores(at, form, { query: grouped, z, core: coreOf(at, form, "key"), output });
    },
  });
}

/** Puts a product of queries [B, H, T, ·] with keys in place of the graph's. Queries of a group stand below each other. */
function writeScores(
  at: SiteWriter,
  form: BlockForm,
  { query, product: multiply }: {
    readonly query: string;
    readonly product: (grouped: string, output: string | undefined) => string;
  },
): void {
  const { query: { heads }, scores } = at.site;
  const groups = form.keyValueHeads;
  const grouped = groups < heads ? at.reshape(query, [0, groups, -1, 0], { label: "query.groups" }) : query;
  const flat = at.rank(scores) === 3;
  const direct = groups === heads && !flat;
  const product = multiply(grouped, direct ? scores : undefined);
  if (direct) return;
  const split = groups < heads
    ? at.reshape(product, [0, heads, -1, 0], { label: "scores.heads", output: flat ? undefined : scores })
    : product;
  if (flat) joinHeads(at, split, { label: "scores.flat", output: scores });
}

/** Contexts and output from small values, in place of the graph's product, output projection and bias. */
export function writeReducedValueOutput(at: SiteWriter, form: BlockForm): void {
  const { query, probabilities } = at.site;
  const { heads } = query;
  const groups = form.keyValueHeads;
  const p = at.rank(probabilities) === 3 ? splitHeads(at, probabilities, heads) : probabilities;
  const grouped = groups < heads ? at.reshape(p, [0, groups, -1, 0], { label: "probabilities.groups" }) : p;
  const type = typeOf(at, probabilities);
  const label = "context.cast";
  const values = (): string => typed(at, cachedHeads(at, "value", form), { to: type, label });
  const product = isLatent(form, "value")
    ? latentContext(at, form, {
      probabilities: typed(at, grouped, { from: type, label }),
      z: latentCache(at, form, "value"),
    })
    : typed(at, at.matmul(grouped, values(), { label: "context" }), { from: type, label });
  const context = groups < heads ? at.reshape(product, [0, heads, -1, 0], { label: "context.split" }) : product;
  const joined = at.reshape(at.transpose(context, [0, 2, 1, 3], "context.positions"), [0, 0, -1], {
    label: "context.joined",
  });
  writeOutputFactors(at, form, joined);
}

/** The output from a small context [batch, positions, heads · ρ], in place of the output projection and its bias. */
export function writeOutputFactors(at: SiteWriter, form: BlockForm, context: string): void {
  const scale = outputScale(at.site);
  const result = outputSteps(form).reduce((input, role) => at.matmul(input, at.factor(role), { label: role }), context);
  finishOutput(at, at.scaled(result, scale, "output.scale"), at.site.output.result);
}

/** Small keys as [B, G, ρ, S]. Without a cache one transposition does. */
function keysAcross(at: SiteWriter, form: BlockForm): string {
  if (!isCached(at.site, "key")) return at.transpose(splitGroups(at, "key", form), [0, 2, 3, 1], "key");
  return at.transpose(cachedHeads(at, "key", form), [0, 1, 3, 2], "key.across");
}

/** [B, T, G, ρ]. */
function splitGroups(at: SiteWriter, name: CachedName, form: BlockForm): string {
  const joined = name === "key" ? at.project(name, form.key) : at.projectValue(form.value);
  const heads = at.reshape(joined, [0, 0, form.keyValueHeads, -1], { label: `${name}.heads` });
  const { norm } = at.site[name];
  return norm === undefined ? heads : writeHeadNorm(at, heads, norm);
}

/** All positions of key or value, [B, G, S, ρ], with the past before them. */
export function cachedHeads(at: SiteWriter, name: CachedName, form: BlockForm): string {
  const fresh = (): string => at.transpose(splitGroups(at, name, form), [0, 2, 1, 3], name);
  return isCached(at.site, name) ? writeCache(at, name, fresh, headsWidth(at, form, name)) : fresh();
}

function outputSteps(form: BlockForm): readonly ("output.a" | "output.b" | "output.dense" | "up")[] {
  if (form.output === "dense") return ["output.dense"];
  return form.output === "shared" ? ["output.a", "up"] : ["output.a", "output.b"];
}

/** Adds the bias, and takes over the value that held projection and bias, in its rows. */
function finishOutput(at: SiteWriter, projected: string, result: string): void {
  const { order, projection } = at.site.output;
  const flat = at.rank(result) <= order!.axes.length;
  const asIs = isPlain(order!) && !flat;
  const output = asIs ? result : undefined;
  const biased = at.has("output.bias")
    ? at.node("Add", [projected, at.factor("output.bias")], { label: "output.bias", output })
    : asIs
    ? at.node("Identity", [projected], { label: "output", output })
    : projected;
  if (asIs) return;
  const rows = inOwnRows(at, biased);
  if (flat) at.reshape(rows, [-1, projection.columns], { label: "output.rows", output: result });
  else at.node("Identity", [rows], { label: "output", output: result });
}

/** [B, H, T, S] to [B·H, T, S]. */
function joinHeads(at: SiteWriter, input: string, to: { readonly label: string; readonly output: string }): void {
  const parts = [at.writer.integers([-1]), at.size(input, 2), at.size(input, 3)];
  const shape = at.node("Concat", parts, { label: `${to.label}.shape`, attributes: { axis: 0n } });
  at.node("Reshape", [input, shape], to);
}

/** [B·H, T, S] to [B, H, T, S]. */
function splitHeads(at: SiteWriter, input: string, heads: number): string {
  const parts = [at.writer.integers([-1, heads]), at.size(input, 1), at.size(input, 2)];
  const shape = at.node("Concat", parts, { label: "heads.shape", attributes: { axis: 0n } });
  return at.node("Reshape", [input, shape], { label: "heads.split" });
}

/** Element type of one of the graph's own values. */
function typeOf(at: SiteWriter, name: string): number {
  return elementTypeAt(at.graph, name) ?? at.elementType;
}

/** A value of one element type in another; the block's own is the one that isn't given. */
function typed(
  at: SiteWriter,
  value: string,
  { from = at.elementType, to = at.elementType, ...options }: {
    readonly from?: number;
    readonly to?: number;
    readonly label: string;
    readonly output?: string | undefined;
  },
): string {
  return from === to ? value : at.node("Cast", [value], { ...options, attributes: { to: BigInt(to) } });
}
