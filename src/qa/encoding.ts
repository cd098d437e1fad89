/**
 * Tokens with everything that is known about each: the columns of an encoding, one entry per token.
 *
 * @module
 */

/** Tokens of a text, or of a pair with its special tokens. */
export interface Encoding {
  readonly ids: readonly number[];
  readonly tokens: readonly string[];
  /** First code point of the original text behind each token; 0 for special tokens. */
  readonly starts: readonly number[];
  /** Code point after the last one behind each token; 0 for special tokens. */
  readonly ends: readonly number[];
  /** Number of the word of its text that each token belongs to; -1 for special tokens. */
  readonly words: readonly number[];
  /** 0 for the first text of a pair, 1 for the second, -1 for special tokens. */
  readonly sequences: readonly number[];
  /** The model's `token_type_ids`. */
  readonly typeIds: readonly number[];
}

/** Tokens `[start, end)` of an encoding. */
export function sliceEncoding(encoding: Encoding, start: number, end: number): Encoding {
  return {
    ids: encoding.ids.slice(start, end),
    tokens: encoding.tokens.slice(start, end),
    starts: encoding.starts.slice(start, end),
    ends: encoding.ends.slice(start, end),
    words: encoding.words.slice(start, end),
    sequences: encoding.sequences.slice(start, end),
    typeIds: encoding.typeIds.slice(start, end),
  };
}

/** Encodings one after the other. */
export function concatEncodings(parts: readonly Encoding[]): Encoding {
  return {
    ids: parts.flatMap(({ ids }) => ids),
    tokens: parts.flatMap(({ tokens }) => tokens),
    starts: parts.flatMap(({ starts }) => starts),
    ends: parts.flatMap(({ ends }) => ends),
    words: parts.flatMap(({ words }) => words),
    sequences: parts.flatMap(({ sequences }) => sequences),
    typeIds: parts.flatMap(({ typeIds }) => typeIds),
  };
}

/** One special token. */
export function specialToken(id: number, token: string, typeId: number): Encoding {
  return { ids: [id], tokens: [token], starts: [0], ends: [0], words: [-1], sequences: [-1], typeIds: [typeId] };
}

/**
 * Windows of at most `length` tokens in which every two neighbours share `stride` tokens; the last ends with the encoding.
 * Needs `stride < length` where there is more than one window.
 */
export function windowRanges(tokens: number, length: number, stride: number): [start: number, end: number][] {
  if (tokens <= length) return [[0, tokens]];
  if (!(stride < length)) {
    throw new RangeError(`Windows of ${length} tokens can't share ${stride}; they must share fewer`);
  }
  const ranges: [number, number][] = [];
  for (let start = 0;; start += length - stride) {
    const end = Math.min(start + length, tokens);
    ranges.push([start, end]);
    if (end === tokens) return ranges;
  }
}
