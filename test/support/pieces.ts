/**
 * Runs a decoder on a prompt piece by piece, each call with the cache that the one before gave out.
 *
 * @module
 */
import { type Nested, nestedNumbers, nestedShape } from "./oracle.ts";
import type { Numbers, TestSession } from "./session.ts";

/** How a prompt is cut, and what is fed besides. */
export interface PieceOptions {
  /** Numbers of tokens, as many together as the prompt has. */
  readonly pieces: readonly number[];
  readonly factors?: Readonly<Record<string, Numbers>>;
  /** Sizes of named dimensions of the cache that differ from the model's own. */
  readonly sizes?: Readonly<Record<string, number>>;
}

/** Logits of all positions, [B, T, V], and the last call's outputs. */
export interface PieceResult {
  readonly logits: Numbers;
  readonly last: Readonly<Record<string, Numbers>>;
}

/** Runs `inputs` (token ids, mask and positions of the whole prompt) in pieces. */
export async function runInPieces(
  session: TestSession,
  inputs: Readonly<Record<string, Nested>>,
  { pieces, factors = {}, sizes = {} }: PieceOptions,
): Promise<PieceResult> {
  const [batch, total] = nestedShape(inputs["input_ids"]!) as [number, number];
  if (pieces.reduce((a, b) => a + b, 0) !== total) throw new RangeError(`pieces ${pieces} don't make ${total} tokens`);
  const columns = (name: string, from: number, to: number): Nested => {
    const all = nestedNumbers(inputs[name]!);
    return Array.from({ length: batch }, (_, b) => all.slice(b * total + from, b * total + to));
  };
  const rows: number[][] = Array.from({ length: batch }, () => []);
  let last: Record<string, Numbers> = {};
  let width = 0;
  let from = 0;
  for (const count of pieces) {
    const to = from + count;
    const fed = {
      input_ids: columns("input_ids", from, to),
      attention_mask: columns("attention_mask", 0, to),
      ..."position_ids" in inputs ? { position_ids: columns("position_ids", from, to) } : {},
    };
    last = await session.run(fed, { ...factors, ...pastOf(last) }, sizes);
    const { shape, data } = last["logits"]!;
    width = shape.at(-1)!;
    rows.forEach((row, b) => row.push(...Array.from(data).slice(b * count * width, (b + 1) * count * width)));
    from = to;
  }
  return { logits: { shape: [batch, total, width], data: rows.flat() }, last };
}

/** The same tokens one by one behind the first piece. */
export function oneByOne([first, ...others]: readonly number[]): number[] {
  return [first!, ...others.flatMap((count) => Array.from({ length: count }, () => 1))];
}

/** What a call gave out for the next, under the names that that takes. */
export function pastOf(outputs: Readonly<Record<string, Numbers>>): Record<string, Numbers> {
  return Object.fromEntries(
    Object.entries(outputs).filter(([name]) => name.startsWith("present."))
      .map(([name, value]) => [name.replace("present.", "past_key_values."), value]),
  );
}
