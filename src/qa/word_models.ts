/**
 * The models of tokenizer.json (WordPiece, BPE, Unigram) applied to one word. @huggingface/tokenizers cuts words
 * for the first two; which characters each token covers is worked out here.
 *
 * @module
 */
import { BPE, WordPiece } from "@huggingface/tokenizers";
import { TuckerdError } from "../errors.ts";
import type { ModelConfig } from "./tokenizer_file.ts";
import { Unigram } from "./unigram.ts";

/** A token of a word: its id, text, and the characters `[start, end)` of the word that it covers. */
export interface Piece {
  readonly id: number;
  readonly token: string;
  readonly start: number;
  readonly end: number;
}

/** Cuts a word into tokens that cover it in order. */
export type WordModel = (word: readonly string[]) => readonly Piece[];

/** Words whose tokens are remembered, and the longest that is: texts repeat their words. */
const rememberedWords = 10_000;
const longestRemembered = 64;

/** The model that a configuration describes. */
export function createWordModel(config: ModelConfig): WordModel {
  switch (config.type) {
    case "WordPiece":
      return remembering(wordPiece(config));
    case "BPE":
      return remembering(bytePairs(config));
    case "Unigram":
      return remembering(unigram(config));
  }
}

/** A model that remembers the words that it saw last. */
function remembering(model: WordModel): WordModel {
  const remembered = new Map<string, readonly Piece[]>();
  return (word) => {
    if (word.length > longestRemembered) return model(word);
    const key = word.join("");
    const known = remembered.get(key);
    if (known !== undefined) return known;
    const pieces = model(word);
    if (remembered.size >= rememberedWords) remembered.clear();
    remembered.set(key, pieces);
    return pieces;
  };
}

function wordPiece(config: Extract<ModelConfig, { type: "WordPiece" }>): WordModel {
  const model = new WordPiece(config);
  const ids = new Map(Object.entries(config.vocab));
  const unknownId = ids.get(config.unk_token);
  if (unknownId === undefined) throw missingToken(config.unk_token);
  return (word) => {
    const tokens = model.encode([word.join("")]);
    if (tokens.length === 1 && tokens[0] === config.unk_token) {
      return [{ id: unknownId, start: 0, end: word.length, token: config.unk_token }];
    }
    let start = 0;
    return tokens.map((token, index) => {
      const prefix = index > 0 ? [...config.continuing_subword_prefix].length : 0;
      const end = start + [...token].length - prefix;
      const piece = { id: ids.get(token)!, token, start, end }; // the library gives tokens of the vocabulary
      start = end;
      return piece;
    });
  };
}

function bytePairs(config: Extract<ModelConfig, { type: "BPE" }>): WordModel {
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix"] as const) {
    if (config[name]) {
      throw new TuckerdError(
        "unsupported",
        `tokenizer.json has a BPE model with ${name} "${config[name]}"; tuckerd reads BPE models without one`,
      );
    }
  }
  const { unk_token: unknownToken, ...settings } = config;
  const model = new BPE(
    {
      ...settings,
      merges: config.merges as [string, string][], // the library takes both forms of merges
      ...unknownToken == null ? {} : { unk_token: unknownToken },
    } as ConstructorParameters<typeof BPE>[0],
  );
  const ids = new Map(Object.entries(config.vocab));
  const unknownId = unknownToken == null ? undefined : ids.get(unknownToken);
  return (word) => {
    const whole = word.join("");
    const wholeId = config.ignore_merges ? ids.get(whole) : undefined;
    if (wholeId !== undefined) return [{ id: wholeId, token: whole, start: 0, end: word.length }];
    const pieces: Piece[] = [];
    let unknownBefore = false;
    for (const { token, start, end } of placed(model.bpe(whole))) {
      const id = ids.get(token);
      const known = id !== undefined
        ? [{ id, token, start, end }]
        : config.byte_fallback
        ? byteTokens(ids, token)?.map((byte) => ({ ...byte, start, end }))
        : undefined;
      if (known !== undefined) pieces.push(...known);
      else if (unknownBefore && config.fuse_unk) pieces.push({ ...pieces.pop()!, end });
      else if (unknownId !== undefined) pieces.push({ id: unknownId, token: unknownToken!, start, end });
      unknownBefore = known === undefined && unknownId !== undefined;
    }
    return pieces;
  };
}

function unigram(config: Extract<ModelConfig, { type: "Unigram" }>): WordModel {
  const { unk_id: unknownId } = config;
  if (unknownId == null || config.vocab[unknownId] === undefined) {
    throw new TuckerdError(
      "bad-model",
      `tokenizer.json has a Unigram model whose unk_id is ${unknownId}; it must name a token`,
    );
  }
  const model = new Unigram(config.vocab);
  const ids = new Map(config.vocab.map(([token], id) => [token, id]));
  return (word) =>
    model.cut(word).flatMap(({ id, start, end }): Piece[] => {
      const token = word.slice(start, end).join("");
      if (id !== undefined) return [{ id, token, start, end }];
      const bytes = config.byte_fallback ? byteTokens(ids, token) : undefined;
      return bytes?.map((byte) => ({ ...byte, start, end })) ?? [{ id: unknownId, token, start, end }];
    });
}

/** A run of a word before it is known whether the vocabulary has it. */
interface Run {
  readonly token: string;
  readonly start: number;
  readonly end: number;
}

/** Where tokens that follow each other stand, in characters. */
function placed(tokens: readonly string[]): Run[] {
  let end = 0;
  return tokens.map((token) => {
    const start = end;
    end += [...token].length;
    return { token, start, end };
  });
}

/** The tokens `<0xNN>` of a text's bytes, if the vocabulary has all of them. */
function byteTokens(ids: ReadonlyMap<string, number>, text: string): { id: number; token: string }[] | undefined {
  const tokens: { id: number; token: string }[] = [];
  for (const byte of new TextEncoder().encode(text)) {
    const token = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    const id = ids.get(token);
    if (id === undefined) return undefined;
    tokens.push({ id, token });
  }
  return tokens;
}

function missingToken(token: string): TuckerdError {
  return new TuckerdError(
    "bad-model",
    `tokenizer.json names the token "${token}" for unknown words, but its vocabulary lacks it`,
  );
}
