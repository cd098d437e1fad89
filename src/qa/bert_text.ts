/**
 * BERT's text rules: which characters are dropped, spaced out, lower-cased or split off.
 *
 * @module
 */
import type { AlignedText } from "./aligned_text.ts";
import { toUnicodeForm } from "./unicode_forms.ts";

/** Settings of BERT's normalizer, as in tokenizer.json. */
export interface BertNormalizerConfig {
  readonly clean_text: boolean;
  readonly handle_chinese_chars: boolean;
  /** Absent or null: as `lowercase`. */
  readonly strip_accents?: boolean | null | undefined;
  readonly lowercase: boolean;
}

/** BERT's normalizer: clean, space out Chinese characters, strip accents, lower-case. */
export function normalizeBert(text: AlignedText, config: BertNormalizerConfig): AlignedText {
  let result = text;
  if (config.clean_text) {
    result = result.filter((character) => !isDropped(character))
      .expand((character) => whiteSpace.test(character) ? " " : character);
  }
  if (config.handle_chinese_chars && !result.chars.every(isAscii)) {
    result = result.expand((character) => isChinese(character) ? [" ", character, " "] : [character]);
  }
  if (config.strip_accents ?? config.lowercase) {
    result = toUnicodeForm(result, "NFD").filter((character) => isAscii(character) || !nonspacingMark.test(character));
  }
  return config.lowercase ? lowercase(result) : result;
}

/**
 * Every character lower-cased by itself, as the Rust tokenizers do: no final sigma, which JavaScript would write at the end
 * of a word.
 */
export function lowercase(text: AlignedText): AlignedText {
  return text.expand((character) => character.toLowerCase());
}

/** White space as Unicode and Rust define it; JavaScript's `\s` has U+FEFF and lacks U+0085. */
export const whiteSpace = /\p{White_Space}/u;

/** Punctuation of BERT: Unicode's, and all ASCII symbols. */
export const bertPunctuation = /[\p{P}!-/:-@[-`{-~]/gu;

const nonspacingMark = /\p{Mn}/u;
const control = /[\p{Cc}\p{Cf}\p{Co}]/u;

function isAscii(character: string): boolean {
  return character < "\x80";
}

function isDropped(character: string): boolean {
  if (character === "\t" || character === "\n" || character === "\r") return false;
  return character === "\u0000" || character === "\uFFFD" || control.test(character);
}

/** First and last code points of the CJK blocks that BERT's tokenizer writes one character to a word. */
const chineseBlocks: readonly (readonly [number, number])[] = [
  [0x4E00, 0x9FFF],
  [0x3400, 0x4DBF],
  [0x20000, 0x2A6DF],
  [0x2A700, 0x2B73F],
  [0x2B740, 0x2B81F],
  [0x2B920, 0x2CEAF],
  [0xF900, 0xFAFF],
  [0x2F800, 0x2FA1F],
];

function isChinese(character: string): boolean {
  const codePoint = character.codePointAt(0)!;
  return chineseBlocks.some(([first, last]) => first <= codePoint && codePoint <= last);
}
