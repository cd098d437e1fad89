/**
 * Added tokens (such as `[SEP]` or `<mask>`) are found in a text before anything else, as the Rust tokenizers do it: first
 * those that match the text as given, then, in what lies between and is normalised, the others.
 *
 * @module
 */
import { AlignedText } from "./aligned_text.ts";
import { whiteSpace } from "./bert_text.ts";
import type { Normalizer } from "./normalizers.ts";
import type { AddedTokenConfig } from "./tokenizer_file.ts";

/** A stretch of a text: normalised text to be cut into words, or an added token. */
export interface Stretch {
  readonly text: AlignedText;
  readonly added?: AddedTokenConfig;
}

/** Cuts a text at its added tokens and normalises the rest. */
export type AddedTokenSplitter = (text: AlignedText) => Stretch[];

/** The splitter for a tokenizer's added tokens. */
export function createAddedTokenSplitter(
  tokens: readonly AddedTokenConfig[],
  normalize: Normalizer,
): AddedTokenSplitter {
  const asGiven = createFinder(tokens.filter(({ normalized }) => !normalized).map((token) => [token.content, token]));
  const asNormalized = createFinder(
    tokens.filter(({ normalized }) => normalized)
      .map((token) => [normalize(AlignedText.of(token.content)).text(), token]),
  );
  return (text) =>
    asGiven(text).flatMap((stretch) => stretch.added === undefined ? asNormalized(normalize(stretch.text)) : [stretch]);
}

type Finder = (text: AlignedText) => Stretch[];

function createFinder(entries: readonly (readonly [content: string, token: AddedTokenConfig])[]): Finder {
  const byContent = new Map(entries.filter(([content]) => content !== ""));
  if (byContent.size === 0) return (text) => text.length > 0 ? [{ text }] : [];
  const longestFirst = [...byContent.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(longestFirst.map((content) => RegExp.escape(content)).join("|"), "gu");
  return (text) => {
    const stretches: Stretch[] = [];
    let done = 0;
    for (const [matchStart, matchEnd] of text.matches(pattern)) {
      const added = byContent.get(text.chars.slice(matchStart, matchEnd).join(""))!;
      if (added.single_word && !standsAlone(text, matchStart, matchEnd)) continue;
      let start = matchStart, end = matchEnd;
      while (added.lstrip && start > done && whiteSpace.test(text.chars[start - 1]!)) start--;
      while (added.rstrip && end < text.length && whiteSpace.test(text.chars[end]!)) end++;
      if (start > done) stretches.push({ text: text.slice(done, start) });
      stretches.push({ text: text.slice(start, end), added });
      done = end;
    }
    if (done < text.length) stretches.push({ text: text.slice(done, text.length) });
    return stretches;
  };
}

const wordCharacter = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200C\u200D]/u;

function standsAlone(text: AlignedText, start: number, end: number): boolean {
  return !(start > 0 && wordCharacter.test(text.chars[start - 1]!)) &&
    !(end < text.length && wordCharacter.test(text.chars[end]!));
}
