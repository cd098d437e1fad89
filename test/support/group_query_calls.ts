/**
 * Calls of models of com.microsoft.GroupQueryAttention with random numbers.
 *
 * @module
 */
import { D, type GroupQueryOptions, H, TABLE } from "./group_query.ts";
import { integer, type Random } from "./random.ts";
import type { Numbers, TestSession } from "./session.ts";

/** Longer than the rotation's tables. */
const BUFFER = TABLE + 8;

function uniform(random: Random, ...shape: number[]): Numbers {
  const length = shape.reduce((a, b) => a * b, 1);
  return { shape, data: Float32Array.from({ length }, () => random() - 0.5) };
}

/** A size by name: a rank, or a rank with numbers beside it. */
function sizeOf(name: string, ranks: Readonly<Record<string, number>>): number {
  const [rank, more = "0"] = name.split(" + ");
  return ranks[rank!]! + Number(more);
}

/** A past without tokens, in a buffer of arbitrary numbers where the model is told to have one. */
export function firstPast(
  session: TestSession,
  { past }: GroupQueryOptions,
  of: { readonly batch: number; readonly ranks: Readonly<Record<string, number>>; readonly random: Random },
): Record<string, Numbers> {
  const inputs = Object.entries(session.inputShapes).filter(([name]) => name.startsWith("past_key_values."));
  return Object.fromEntries(inputs.map(([name, [, heads, , width]]) => {
    const size = typeof width === "number" ? width : sizeOf(width!, of.ranks);
    return [name, uniform(of.random, of.batch, Number(heads), past === "buffer" ? BUFFER : 0, size)];
  }));
}

/** One call: how many tokens each row of x has, for each row its positions after the call, and what the operator is told of them. */
export interface Call {
  readonly tokens: number;
  readonly lengths: readonly number[];
  readonly total: number;
}

/** What a call is fed besides caches. */
export function feedsOf(
  options: GroupQueryOptions,
  { tokens, lengths, total }: Call,
  random: Random,
): Record<string, Numbers> {
  const batch = lengths.length;
  const { bias, positioned, rotated, fed } = options;
  // Tables of other angles in every call, as models have them that scale angles by the context's length.
  const angles = Array.from({ length: TABLE * rotated / 2 }, () => 6 * random());
  const table = (data: number[]): Numbers => ({ shape: [TABLE, rotated / 2], data });
  const positions = Float32Array.from({ length: batch * tokens }, () => integer(random, 0, TABLE - 6));
  return {
    x: uniform(random, batch, tokens, D),
    seqlens: { shape: [batch], data: lengths.map((length) => length - 1) },
    total: { shape: [], data: [total] },
    ...(fed ? { cos: table(angles.map(Math.cos)), sin: table(angles.map(Math.sin)) } : {}),
    ...(positioned ? { positions: { shape: [batch, tokens], data: positions } } : {}),
    ...(bias ? { bias: uniform(random, bias[0] ? batch : 1, bias[1] ? H : 1, tokens, total) } : {}),
  };
}

/** Numbers of the tokens that a row has, of those of all rows. */
export function live({ data }: Numbers, { tokens, lengths }: Call): number[] {
  return Array.from(data).filter((_, i) => {
    const [row, token] = [Math.floor(i / (tokens * D)), Math.floor(i / D) % tokens];
    return token < lengths[row]!;
  });
}

/** Options of which tests change some. */
export const PLAIN: GroupQueryOptions = {
  groups: 2,
  headSize: 16,
  half: false,
  packed: false,
  biased: false,
  multiplied: false,
  normed: undefined,
  rotated: 16,
  interleaved: false,
  before: undefined,
  fed: false,
  positioned: false,
  bias: undefined,
  sink: undefined,
  causal: true,
  window: undefined,
  softcap: 0,
  scale: undefined,
  past: "grown",
};
