/**
 * Calls of decoders with rotary embeddings, each with the cache that the one before gave out.
 *
 * @module
 */
import { pastOf } from "./pieces.ts";
import { integer, type Random } from "./random.ts";
import { fedTokens, randomStates } from "./rotary_decoder.ts";
import type { Numbers, TestSession } from "./session.ts";

const TOKENS = 9;

/** What calls are made of. */
export interface CallInputs {
  /** Hidden states [batch, tokens, D]. */
  readonly states: number[][][];
  /** How many of them are padding on the left, for each row. */
  readonly padding: readonly number[];
  /** How many tokens each call has. */
  readonly pieces: readonly number[];
}

/** Runs a decoder in pieces through its own cache: what each call gives. */
export async function runCalls(
  session: TestSession,
  inputs: CallInputs,
  { feeds = {}, sizes = {} }: {
    readonly feeds?: Readonly<Record<string, Numbers>>;
    readonly sizes?: Readonly<Record<string, number>>;
  } = {},
): Promise<Record<string, Numbers>[]> {
  const calls: Record<string, Numbers>[] = [];
  let from = 0;
  for (const count of inputs.pieces) {
    const past = pastOf(calls.at(-1) ?? {});
    const fed = fedTokens(inputs.states, { padding: inputs.padding, from, to: from += count });
    calls.push(await session.run(fed, { ...feeds, ...past }, sizes));
  }
  return calls;
}

/** Some tokens in pieces, the second row padded on the left. */
export function randomInputs(random: Random): CallInputs {
  const first = integer(random, 3, 5);
  const pieces = [first];
  for (let left = TOKENS - first; left > 0; left -= pieces.at(-1)!) pieces.push(integer(random, 1, Math.min(left, 3)));
  return { states: randomStates(2, TOKENS, random), padding: [0, 2], pieces };
}
