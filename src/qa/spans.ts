/**
 * Scores of answer spans in one window, as Hugging Face's question-answering pipeline computes them
 * (`select_starts_ends`, `decode_spans`), in float32 like the pipeline.
 *
 * @module
 */
import type { Encoding } from "./encoding.ts";

/** What a masked token's logit becomes before the softmax. */
const maskedLogit = -10000;

/** A candidate: tokens `start` to `end`, both included. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly score: number;
}

/** How spans are chosen. */
export interface SpanOptions {
  readonly startLogits: ArrayLike<number>;
  readonly endLogits: ArrayLike<number>;
  readonly classificationId: number | undefined;
  /** Longest span in tokens. */
  readonly maxLength: number;
  /** How many spans to give at most. */
  readonly count: number;
}

/** The spans of one window, best first, and the score of "no answer". */
export interface WindowSpans {
  readonly spans: readonly Span[];
  readonly nullScore: number;
}

/**
 * The best spans of a window. Tokens of the context and every classification token, wherever it stands, take part in the
 * softmax; then the token at position 0 gets probability 0, its own product being the score of "no answer". Where fewer
 * spans have a score than are asked for, pairs of tokens with score 0 (of the wrong order or length, too) fill the list up in
 * order of their position, as an exact sort would; the pipeline's partial sort takes some of them in no stated order.
 */
export function bestSpans(encoding: Encoding, options: SpanOptions): WindowSpans {
  const { classificationId, maxLength, count } = options;
  const allowed = encoding.ids.map((id, index) => encoding.sequences[index] === 1 || id === classificationId);
  const start = probabilities(options.startLogits, allowed);
  const end = probabilities(options.endLogits, allowed);
  const nullScore = Math.fround(start[0]! * end[0]!);
  start[0] = end[0] = 0;
  const scored: Span[] = [];
  for (let from = 0; from < start.length; from++) {
    if (start[from] === 0) continue;
    for (let to = from; to < Math.min(start.length, from + maxLength); to++) {
      const score = Math.fround(start[from]! * end[to]!);
      if (score > 0) scored.push({ start: from, end: to, score });
    }
  }
  const spans = scored.sort((a, b) => b.score - a.score).slice(0, count);
  return { spans: [...spans, ...unscoredSpans(scored, allowed, count - spans.length)], nullScore };
}

/** The allowed among the first `count` pairs of tokens that have no score, in order of their position. */
function unscoredSpans(scored: readonly Span[], allowed: readonly boolean[], count: number): Span[] {
  const tokens = allowed.length;
  const taken = new Set(scored.map(({ start, end }) => start * tokens + end));
  const spans: Span[] = [];
  for (let pair = 0, left = count; left > 0 && pair < tokens * tokens; pair++) {
    if (taken.has(pair)) continue;
    left--;
    const start = Math.floor(pair / tokens), end = pair % tokens;
    if (allowed[start] && allowed[end]) spans.push({ start, end, score: 0 });
  }
  return spans;
}

/** Softmax over the allowed tokens; the others get 0. */
function probabilities(logits: ArrayLike<number>, allowed: readonly boolean[]): Float32Array {
  const values = Float32Array.from(allowed, (isAllowed, index) => isAllowed ? logits[index]! : maskedLogit);
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const exponentials = values.map((value) => Math.exp(value - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}
