/**
 * Greedy decoding, through a cache where the model has one.
 *
 * @module
 */
import type { Nested } from "./oracle.ts";
import { pastOf } from "./pieces.ts";
import type { Numbers, TestSession } from "./session.ts";

/** What a decoder is given besides tokens. */
export interface GreedyOptions {
  readonly prompt: readonly number[];
  readonly count: number;
  readonly factors?: Readonly<Record<string, Numbers>>;
  /** Sizes of named dimensions of the cache, where it holds fewer numbers than the model's own. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** The model of the first call, where it is one of its own. */
  readonly first?: TestSession;
}

/** Decodes `count` tokens: mask all ones, positions from 0, no end of text. */
export async function greedy(session: TestSession, options: GreedyOptions): Promise<number[]> {
  const { prompt, count, factors = {}, sizes = {}, first = session } = options;
  const cached = session.inputs.some((name) => name.startsWith("past_key_values."));
  const tokens = [...prompt];
  let past: Record<string, Numbers> = {};
  while (tokens.length < prompt.length + count) {
    const from = cached && tokens.length > prompt.length ? tokens.length - 1 : 0;
    const fed = tokens.slice(from);
    const inputs: Record<string, Nested> = {
      input_ids: [fed],
      attention_mask: [tokens.map(() => 1)],
      position_ids: [fed.map((_, i) => from + i)],
    };
    const outputs = await (from === 0 ? first : session).run(inputs, { ...factors, ...past }, sizes);
    past = pastOf(outputs);
    const { shape, data } = outputs["logits"]!;
    const last = Array.from(data).slice(-shape.at(-1)!);
    tokens.push(last.indexOf(Math.max(...last)));
  }
  return tokens.slice(prompt.length);
}
