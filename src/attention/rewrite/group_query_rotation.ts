/**
 * The rotation inside a com.microsoft.GroupQueryAttention: of the new tokens' queries and keys, and of the keys of all positions, where
 * those are made again from z in every call. With C the heads' factor `key.b` [G, r1, r2] and E = `key.expand` [r2, h]:
 *
 *     keys = rotate(Z C E + bias)          S·(r1·G·r2 + G·r2·h) multiplications
 *
 * What the graph does before the operator, a norm as a rule, is done to them as in `rotated.ts`.
 *
 * Where the operator counts positions itself, a key's place in the cache is the position by which it is rotated: constant tables and that
 * tell all. Otherwise the cosines and sines that a token met are kept beside its z, by the first of the layers that are rotated alike.
 *
 * @module
 */
import { makeNode } from "../../onnx/node.ts";
import { type GroupQuery, type Rotary, rotatedNumbers } from "../group_query.ts";
import type { BlockForm } from "../types.ts";
import { coreOf } from "./latent.ts";
import { constant, groupedBias } from "./operands.ts";
import type { Places } from "./positions.ts";
import { straightKeys } from "./rotated.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Where the angles of some positions are found. */
export interface Angles extends Pick<Rotary, "cosine" | "sine" | "interleaved"> {
  /** Rows of both tables, [B, positions], or the first of rows that follow each other, [1]. */
  readonly rows: string;
  /** How many of a head's numbers are rotated. */
  readonly turned: number;
}

/** Angles of the new tokens. */
export function freshAngles(at: SiteWriter, rotary: Rotary, { rotation }: Places): Angles {
  return { ...rotary, rows: rotation, turned: rotatedNumbers(at.tracer, at.graph, rotary) };
}

/** Heads [B, heads, positions, h], rotated. */
export function rotate(
  at: SiteWriter,
  value: string,
  { heads, angles }: { readonly heads: number; readonly angles: Angles },
): string {
  const { cosine, sine, interleaved, rows, turned } = angles;
  const output = at.writer.fresh(`${value}.rotated`);
  const part = turned < at.site.key.headSize ? { num_heads: BigInt(heads), rotary_embedding_dim: BigInt(turned) } : {};
  at.writer.put(
    at.graph,
    makeNode("RotaryEmbedding", [value, rows, cosine, sine], [output], {
      name: output,
      domain: "com.microsoft",
      attributes: { interleaved: interleaved ? 1n : 0n, ...part },
    }),
  );
  return output;
}

/** Keys of all positions, [B, G, S, h], as the operator would have cached them, from z [B, 1, S, r]. */
export function latentKeys(
  at: SiteWriter,
  form: BlockForm,
  { z, operator: { rotary } }: { readonly z: string; readonly operator: GroupQuery },
): string {
  const core = coreOf(at, form, "key");
  const { rotation } = at.rotated;
  const before = rotation.inside && rotation.before !== undefined;
  const keys = before ? straightKeys(at, form, { z, core }) : projectedKeys(at, form, { z, core });
  return rotary === undefined ? keys : rotate(at, keys, { heads: form.keyValueHeads, angles: allAngles(at, rotary) });
}

/** Keys of full size that are no more than projected, [B, G, S, h]. */
function projectedKeys(
  at: SiteWriter,
  form: BlockForm,
  { z, core }: { readonly z: string; readonly core: string },
): string {
  const { scale, bias, headSize } = at.site.key;
  const groups = form.keyValueHeads;
  const shared = form.key === "shared";
  const first = at.matmul(z, shared ? core : at.scaled(core, scale, "key.core.scale"), { label: "key.all" });
  const expand = (): string => at.scaled(at.factor("key.expand"), scale, "key.expand.scale");
  const product = shared ? at.matmul(first, expand(), { label: "key.expanded" }) : first;
  return bias === undefined ? product : at.node("Add", [
    product,
    constant(at, { label: "key.bias", values: groupedBias(at, "key", groups), shape: [groups, 1, headSize] }),
  ], { label: "key.full" });
}

/** Cosines and sines that the new tokens meet, [B, 1, T, count]. */
export function metCoefficients(at: SiteWriter, { cosine, sine }: Rotary, { rotation }: Places): string {
  const rows = [cosine, sine].map((table) => at.node("Gather", [table, rotation], { label: "rotation.rows" }));
  const joined = at.node("Concat", rows, { label: "rotation.joined", attributes: { axis: -1n } });
  return at.reshape(joined, [0, 1, -1, at.rotated.rotation.count], { label: "rotation.new" });
}

/** Lets all layers that are rotated like this one have the coefficients that it keeps, [B, 1, S, count]. */
export function keepCoefficients(at: SiteWriter, all: string): void {
  at.shared(keptBy(at), () => all);
}

/** Angles of all positions: rows of the operator's tables, or what was kept as a table with a row for each row and position. */
function allAngles(at: SiteWriter, rotary: Rotary): Angles {
  const { count } = at.rotated.rotation;
  const turned = rotatedNumbers(at.tracer, at.graph, rotary);
  if (count === 0) return { ...rotary, rows: at.writer.integers([0]), turned };
  const kept = keptBy(at);
  const all = at.shared(kept, () => {
    throw new TypeError("no layer before keeps the coefficients of the rotation");
  });
  const table = (name: string, start: number, end: number): string =>
    at.shared(`${name} of ${kept}`, () => {
      const [from, to, axis] = [start, end, 3].map((number) => at.writer.integers([number])) as [
        string,
        string,
        string,
      ];
      const part = at.node("Slice", [all, from, to, axis], { label: `rotation.${name}` });
      return at.reshape(part, [-1, count / 2], { label: `rotation.${name}.rows` });
    });
  const cosine = table("cosines", 0, count / 2);
  const rows = at.shared(`rows of ${kept}`, () => {
    const size = at.node("Squeeze", [at.size(cosine, 0)], { label: "rotation.count" });
    const limits = [at.writer.integer(0), size, at.writer.integer(1)];
    const shape = at.node("Concat", [at.size(all, 0), at.size(all, 2)], {
      label: "rotation.shape",
      attributes: { axis: 0n },
    });
    return at.node("Reshape", [at.node("Range", limits, { label: "rotation.range" }), shape], {
      label: "rotation.places",
    });
  });
  return { cosine, sine: table("sines", count / 2, count), rows, turned, interleaved: rotary.interleaved };
}

function keptBy(at: SiteWriter): string {
  return `rotation ${at.rotated.rotation.group}`;
}
