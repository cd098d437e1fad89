/**
 * An encoder-decoder's decoder over calls: what it gives out in one is what it gets in the next.
 *
 * @module
 */
import type { Nested } from "./oracle.ts";
import type { Numbers } from "./session.ts";

/** A loaded decoder. */
export interface CallableDecoder {
  run(
    inputs: Readonly<Record<string, Nested>>,
    past?: Readonly<Record<string, Numbers>>,
  ): Promise<Record<string, Numbers>>;
}

/** One sequence of calls, of one token each. */
export class Decoding {
  /** The cache after the calls so far. */
  past: Record<string, Numbers> | undefined;

  /** @param fed what every call takes besides tokens and cache */
  constructor(
    readonly first: CallableDecoder,
    readonly later: CallableDecoder,
    readonly fed: Readonly<Record<string, Nested>>,
  ) {}

  /** Logits of the token after the given ones, one for each row of the batch: [batch, 1, vocabulary]. */
  async step(tokens: readonly number[]): Promise<Numbers> {
    const callable = this.past === undefined ? this.first : this.later;
    const outputs = await callable.run({ ...this.fed, input_ids: tokens.map((token) => [token]) }, this.past);
    const present = Object.entries(outputs).filter(([name]) => name.startsWith("present."))
      .map(([name, value]) => [name.replace("present.", "past_key_values."), value] as const)
      // Later calls give the encoder's keys out empty, or not at all: those of the first call stay.
      .filter(([name]) => this.past === undefined || !name.includes("encoder"));
    this.past = { ...this.past, ...Object.fromEntries(present) };
    return outputs["logits"]!;
  }

  /** Logits of all positions, given one token at a time: [positions][batch · vocabulary]. */
  async steps(tokens: readonly (readonly number[])[]): Promise<number[][]> {
    const found: number[][] = [];
    for (let t = 0; t < tokens[0]!.length; t++) {
      found.push(Array.from((await this.step(tokens.map((row) => row[t]!))).data));
    }
    return found;
  }
}
