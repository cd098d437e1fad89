/**
 * The normalizers of tokenizer.json, with origins kept.
 *
 * @module
 */
import type { AlignedText } from "./aligned_text.ts";
import { lowercase, normalizeBert, whiteSpace } from "./bert_text.ts";
import { compilePattern } from "./patterns.ts";
import { parseCharsMap } from "./precompiled.ts";
import type { NormalizerConfig } from "./tokenizer_file.ts";
import { toUnicodeForm } from "./unicode_forms.ts";

/** Rewrites a text. */
export type Normalizer = (text: AlignedText) => AlignedText;

const mark = /\p{M}/u;

/** The normalizer that a configuration describes; without one, texts stay as they are. */
export function createNormalizer(config: NormalizerConfig | null | undefined): Normalizer {
  if (config === null || config === undefined) return (text) => text;
  switch (config.type) {
    case "BertNormalizer":
      return (text) => normalizeBert(text, config);
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return (text) => toUnicodeForm(text, config.type);
    case "Lowercase":
      return lowercase;
    case "StripAccents":
      return (text) => text.filter((character) => !mark.test(character));
    case "Strip":
      return (text) => strip(text, config.strip_left, config.strip_right);
    case "Replace": {
      const pattern = compilePattern(config.pattern);
      return (text) => text.replaceAll(pattern, config.content);
    }
    case "Prepend":
      return (text) => text.prepend(config.prepend);
    case "Precompiled":
      return parseCharsMap(config.precompiled_charsmap);
    case "Sequence": {
      const steps = config.normalizers.map(createNormalizer);
      return (text) => steps.reduce((result, step) => step(result), text);
    }
  }
}

function strip(text: AlignedText, left: boolean, right: boolean): AlignedText {
  let start = 0, end = text.length;
  while (left && start < end && whiteSpace.test(text.chars[start]!)) start++;
  while (right && end > start && whiteSpace.test(text.chars[end - 1]!)) end--;
  return text.slice(start, end);
}
