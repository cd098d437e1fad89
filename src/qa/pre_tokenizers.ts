/**
 * The pre-tokenizers of tokenizer.json: they cut a normalised text into the words that the model then cuts into tokens.
 *
 * @module
 */
import type { AlignedText } from "./aligned_text.ts";
import { bertPunctuation } from "./bert_text.ts";
import { toByteCharacters } from "./byte_level.ts";
import { compilePattern } from "./patterns.ts";
import type { PreTokenizerConfig, SplitBehavior } from "./tokenizer_file.ts";

/** Cuts a text into words. */
export type PreTokenizer = (text: AlignedText) => AlignedText[];

/** GPT-2's words: contractions, then letters, numbers and symbols each with the space before them, then white space. */
const byteLevelWords =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const whiteSpaceRuns = /\p{White_Space}/gu;
/** Words and runs of symbols, by Unicode's definition of a word character. */
const wordsAndSymbols =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200C\u200D]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200C\u200D\p{White_Space}]+/gu;

/** The pre-tokenizer that a configuration describes; without one, a text is one word. */
export function createPreTokenizer(config: PreTokenizerConfig | null | undefined): PreTokenizer {
  if (config === null || config === undefined) return (text) => [text];
  switch (config.type) {
    case "BertPreTokenizer":
      return (text) =>
        split(text, whiteSpaceRuns, "Removed").flatMap((word) => split(word, bertPunctuation, "Isolated"));
    case "Whitespace":
      return (text) => split(text, wordsAndSymbols, "Removed", true);
    case "WhitespaceSplit":
      return (text) => split(text, whiteSpaceRuns, "Removed");
    case "Punctuation":
      return (text) => split(text, bertPunctuation, config.behavior);
    case "Digits":
      return (text) => split(text, /\p{N}/gu, config.individual_digits ? "Isolated" : "Contiguous");
    case "Split": {
      const pattern = compilePattern(config.pattern);
      return (text) => split(text, pattern, config.behavior, config.invert);
    }
    case "ByteLevel":
      return (text) => {
        const spaced = config.add_prefix_space && text.chars[0] !== " " ? text.prepend(" ") : text;
        const words = config.use_regex ? split(spaced, byteLevelWords, "Isolated") : [spaced];
        return words.map(toByteCharacters);
      };
    case "Metaspace":
      return metaspace(config);
    case "Sequence": {
      const steps = config.pretokenizers.map(createPreTokenizer);
      return (text) => steps.reduce((words, step) => words.flatMap(step), [text]);
    }
  }
}

/** SentencePiece's words: spaces become visible marks that begin a word. */
function metaspace(config: Extract<PreTokenizerConfig, { type: "Metaspace" }>): PreTokenizer {
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
  const mark = new RegExp(RegExp.escape(config.replacement), "gu");
  return (text) => {
    const marked = text.replaceAll(/ /gu, config.replacement);
    const prefixed = scheme === "always" || scheme === "first" && text.starts[0] === 0;
    const whole = prefixed && marked.chars[0] !== config.replacement ? marked.prepend(config.replacement) : marked;
    return config.split ? split(whole, mark, "MergedWithNext") : [whole];
  };
}

/** Cuts a text at the matches of a pattern (with `invert`: between them); empty pieces are left out. */
function split(text: AlignedText, pattern: RegExp, behavior: SplitBehavior, invert = false): AlignedText[] {
  const pieces = join(segments(text, pattern, invert), behavior);
  return pieces.filter(([start, end]) => end > start).map(([start, end]) => text.slice(start, end));
}

type Segment = [start: number, end: number, isDelimiter: boolean];

/** The whole text as an alternation of matches and what lies between them. */
function segments(text: AlignedText, pattern: RegExp, invert: boolean): Segment[] {
  const result: Segment[] = [];
  let done = 0;
  for (const [start, end] of text.matches(pattern)) {
    if (start > done) result.push([done, start, invert]);
    result.push([start, end, !invert]);
    done = end;
  }
  if (done < text.length) result.push([done, text.length, invert]);
  return result;
}

/** Joins delimiters to their neighbours as the behaviour says. */
function join(parts: readonly Segment[], behavior: SplitBehavior): readonly Segment[] {
  if (behavior === "Isolated") return parts;
  if (behavior === "Removed") return parts.filter(([, , isDelimiter]) => !isDelimiter);
  const result: Segment[] = [];
  let previousWasDelimiter = false;
  for (const [start, end, isDelimiter] of parts) {
    const last = result.at(-1);
    const joins = behavior === "Contiguous"
      ? isDelimiter === previousWasDelimiter
      : behavior === "MergedWithPrevious"
      ? isDelimiter && !previousWasDelimiter
      : previousWasDelimiter && !isDelimiter;
    if (last !== undefined && joins) last[1] = end;
    else result.push([start, end, isDelimiter]);
    previousWasDelimiter = isDelimiter;
  }
  return result;
}
