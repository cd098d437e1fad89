/**
 * Keys that are rotated, from a latent cache: what they are projected from, z, is kept with the coefficients of each position's
 * rotation (cosines and sines), and keys of all positions are made again in every call. With C the heads' factor `key.b`
 * [G, r1, r2] and E = `key.expand` [r2, h], Z the cache of all S positions:
 *
 *     k̃ = Z C                                           [B, G, S, r2]
 *     key j = cos_j ⊙ (k̃ E_j) + sin_j ⊙ (k̃ E_j')        what is rotated, j' being the other of its pair
 *     scores = Σ q_j · key_j + (q_p E_pᵀ) k̃ᵀ             numbers p of a head that aren't rotated stay in r2
 *
 * Keys that are normed first are so in the small space (`key_norm.ts`): k̃ is what comes of that. A key's bias b is rotated too: as cos_j b_j + sin_j b_j' it makes one number of the query for each coefficient, (q b) (cos, sin)ᵀ, so
 * that no key is added to.
 *
 * Coefficients are the graph's own, of new tokens in the call in which they come: positions, paddings and scalings that change
 * from call to call are those that the model's own cache would hold. Layers that are rotated alike share them: the first keeps them.
 *
 * @module
 */
import { intAttribute } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import { isEveryIndex } from "../matrices.ts";
import type { RotationTerm } from "../rotation_terms.ts";
import type { BlockForm } from "../types.ts";
import { gatherLast } from "./full_heads.ts";
import { firstOfGroups } from "./head_numbers.ts";
import { normedExpand, normedKeys } from "./key_norm.ts";
import { constant } from "./operands.ts";
import { allCoefficients, graphRotation, pickedCoefficients } from "./rotation_cache.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Numbers of a head that are made in the same way: as many terms, coefficients at the same ones. */
interface Part {
  /** Places in a head of the product's operands. */
  readonly at: readonly number[];
  readonly terms: readonly (readonly RotationTerm[])[];
}

/** Products of the graph's queries [B, G, H/G·T, h] with the keys of all positions, [B, G, H/G·T, S]. */
export function rotatedScores(
  at: SiteWriter,
  form: BlockForm,
  { query, z, core, output }: {
    readonly query: string;
    readonly z: string;
    readonly core: string;
    readonly output: string | undefined;
  },
): string {
  const small = form.key === "shared" ? smallKeys(at, form, { z, core }) : undefined;
  const products = [
    ...partsOf(at).map((part, i) => (name?: string): string => {
      const own = ownNumbers(at, query, part, `query.part${i}`);
      const label = `scores.part${i}`;
      if (small !== undefined && isPlain(part)) {
        const expand = columnsOf(at, keyExpand(at, form), { part, term: 0, label: `key.expand.part${i}` });
        const { norm, gain } = graphRotation(at);
        const byHead = gain !== undefined || norm?.bias !== undefined;
        const reduce = typed(at, at.transpose(expand, byHead ? [0, 2, 1] : [1, 0], `key.reduce.part${i}`));
        const reduced = at.matmul(own, reduce, { label: `query.small${i}` });
        return times(at, reduced, small, { label, output: name });
      }
      return times(at, own, keysOf(at, form, { part, small, z, core, label: `key.part${i}` }), { label, output: name });
    }),
    ...biasTerms(at, form, query),
  ];
  const [first, ...others] = products as [(name?: string) => string, ...((name?: string) => string)[]];
  if (others.length === 0) return first(output);
  return others.reduce((sum, product, i) =>
    at.node("Add", [sum, product()], {
      label: "scores.sum",
      output: i === others.length - 1 ? output : undefined,
    }), first());
}

/** Keys of full size where no coefficient turns them, [B, G, S, h]. */
export function straightKeys(
  at: SiteWriter,
  form: BlockForm,
  { z, core }: { readonly z: string; readonly core: string },
): string {
  const { terms, bias } = graphRotation(at);
  const part = { at: terms.map((_, j) => j), terms };
  const small = form.key === "shared" ? smallKeys(at, form, { z, core }) : undefined;
  const keys = keysOf(at, form, { part, small, z, core, label: "key.straight" });
  if (bias === undefined) return keys;
  const values = biasMatrix(at, form, [undefined]);
  const own = constant(at, { label: "key.bias.straight", values, shape: [form.keyValueHeads, 1, terms.length] });
  return at.node("Add", [keys, own], { label: "key.full" });
}

/** Heads in r2 numbers, normed where the graph norms them, [B, G, S, r2]. */
function smallKeys(
  at: SiteWriter,
  form: BlockForm,
  { z, core }: { readonly z: string; readonly core: string },
): string {
  const heads = at.matmul(z, core, { label: "key.small" });
  const { norm } = graphRotation(at);
  return norm === undefined ? heads : normedKeys(at, heads, { norm, groups: form.keyValueHeads });
}

/** What makes h numbers of those, [r2, h]; for each head where they have biases before the norm or gains of their own. */
function keyExpand(at: SiteWriter, form: BlockForm): string {
  return at.once("gained key.expand", () => {
    const { norm } = graphRotation(at);
    const expand = norm === undefined
      ? at.factor("key.expand")
      : normedExpand(at, { norm, groups: form.keyValueHeads });
    return gained(at, form, { matrix: expand, label: "key.expand.gained" });
  });
}

/** The matrix of each head [G, ·, h] with the head's gains, where it has them. */
function gained(
  at: SiteWriter,
  { keyValueHeads: groups }: BlockForm,
  { matrix, label }: { readonly matrix: string; readonly label: string },
): string {
  const { gain } = graphRotation(at);
  if (gain === undefined) return matrix;
  const { key } = at.site;
  const values = firstOfGroups(key, gain, groups);
  const gains = constant(at, { label: `${label}.gains`, values, shape: [groups, 1, key.headSize] });
  return at.node("Mul", [matrix, gains], { label });
}

/** Numbers of a part for all positions, without biases: [B, G, S, n]. */
function keysOf(
  at: SiteWriter,
  form: BlockForm,
  { part, small, z, core, label }: {
    readonly part: Part;
    readonly small: string | undefined;
    readonly z: string;
    readonly core: string;
    readonly label: string;
  },
): string {
  const ownCore = (): string =>
    at.once("gained key.core", () => gained(at, form, { matrix: core, label: "key.core.gained" }));
  const summands = part.terms[0]!.map((_, term) => {
    const named = `${label}.term${term}`;
    const projected = small === undefined
      ? at.matmul(z, columnsOf(at, ownCore(), { part, term, label: `${named}.core` }), { label: named })
      : at.matmul(small, columnsOf(at, keyExpand(at, form), { part, term, label: `${named}.expand` }), {
        label: named,
      });
    const index = part.terms.map((terms) => terms[term]!.coefficient);
    if (!index.every((coefficient) => coefficient !== undefined)) return projected;
    const coefficients = pickedCoefficients(at, index);
    return at.node("Mul", [projected, coefficients], { label: `${named}.turned` });
  });
  return summands.reduce((sum, summand) => at.node("Add", [sum, summand], { label }));
}

/** What biases of keys add to the scores: by the coefficients of their positions, and the same for all positions. */
function biasTerms(at: SiteWriter, form: BlockForm, query: string): (() => string)[] {
  const { terms, count, bias } = graphRotation(at);
  if (bias === undefined) return [];
  const all = terms.flat().map(({ coefficient }) => coefficient);
  const project = (coefficients: readonly (number | undefined)[], label: string): string => {
    const values = biasMatrix(at, form, coefficients);
    const matrix = constant(at, { label, values, shape: [form.keyValueHeads, terms.length, coefficients.length] });
    return at.matmul(query, typed(at, matrix), { label: `query.${label}` });
  };
  const turned = (): string => {
    const own = project(Array.from({ length: count }, (_, i) => i), "key.bias.turned");
    return times(at, own, allCoefficients(at), { label: "scores.bias", output: undefined });
  };
  return [
    ...count > 0 ? [turned] : [],
    ...all.includes(undefined) ? [() => project([undefined], "key.bias.straight")] : [],
  ];
}

/** For each group, number of a head and coefficient the sum of the biases that it turns, with their scales: [G, h, n]. */
function biasMatrix(at: SiteWriter, form: BlockForm, coefficients: readonly (number | undefined)[]): Float32Array {
  const { heads, headSize: h } = at.site.key;
  const { terms, gain, bias } = graphRotation(at);
  const repeat = heads / form.keyValueHeads;
  const own = (at: number): number => bias![at]! * (gain?.[at] ?? 1);
  return Float32Array.from(
    Array.from(
      { length: form.keyValueHeads },
      (_, g) =>
        terms.map((list) =>
          coefficients.map((coefficient) =>
            list.filter((term) => term.coefficient === coefficient)
              .reduce((sum, { from, scale }) => sum + own(g * repeat * h + from) * scale, 0)
          )
        ),
    ).flat(2),
  );
}

/** Numbers of a head by the way in which they are made. */
function partsOf(at: SiteWriter): Part[] {
  const parts = new Map<string, { at: number[]; terms: (readonly RotationTerm[])[] }>();
  for (const [j, terms] of graphRotation(at).terms.entries()) {
    const way = terms.map(({ coefficient }) => coefficient === undefined ? "straight" : "turned").join(" ");
    const part = parts.get(way) ?? { at: [], terms: [] };
    part.at.push(j);
    part.terms.push(terms);
    parts.set(way, part);
  }
  return [...parts.values()];
}

/** Whether a part is nothing but projected. */
function isPlain({ terms }: Part): boolean {
  return terms[0]!.length === 1 && terms[0]![0]!.coefficient === undefined;
}

/** The columns of a matrix for one term of a part, with their scales. */
function columnsOf(
  at: SiteWriter,
  matrix: string,
  { part, term, label }: { readonly part: Part; readonly term: number; readonly label: string },
): string {
  const columns = gatherLast(at, matrix, { index: part.terms.map((terms) => terms[term]!.from), label });
  const scales = part.terms.map((terms) => terms[term]!.scale);
  const [first] = scales as [number];
  if (scales.every((scale) => scale === first)) return at.scaled(columns, first, `${label}.scaled`);
  const values = constant(at, { label: `${label}.scales`, values: Float32Array.from(scales) });
  return at.node("Mul", [columns, values], { label: `${label}.scaled` });
}

/** The numbers of a part, cut from queries. */
function ownNumbers(at: SiteWriter, query: string, part: Part, label: string): string {
  const { headSize } = at.site.key;
  const whole = isEveryIndex(part.at, headSize);
  return whole ? query : gatherLast(at, query, { index: part.at, label });
}

/** Queries times keys, in the queries' type. */
function times(
  at: SiteWriter,
  query: string,
  keys: string,
  options: { readonly label: string; readonly output: string | undefined },
): string {
  return at.matmul(query, typed(at, at.transpose(keys, [0, 1, 3, 2], `${options.label}.key`)), options);
}

/** A value of the block's element type in the type of the graph's queries. */
function typed(at: SiteWriter, value: string): string {
  const to = queryType(at);
  return to === at.elementType
    ? value
    : at.node("Cast", [value], { label: "key.typed", attributes: { to: BigInt(to) } });
}

/** Element type in which the graph's product of scores, or its operator, takes queries: that of the last Cast on their way there. */
export function queryType(at: SiteWriter): number {
  const { graph, tracer, site: { scores, query: { projection } } } = at;
  for (let node = graph.producer(scores); node !== undefined && node !== projection.node;) {
    if (node.opType === "Cast") return intAttribute(node, "to", DataType.FLOAT);
    const next = node.input.find((input) => input !== "" && tracer.reaches(graph, input, projection.node));
    node = next === undefined ? undefined : graph.producer(next);
  }
  return at.elementType;
}
