/**
 * SentencePiece's Unigram model: the cut of a word whose tokens' log-probabilities have the greatest sum. Ties and rounding
 * are those of the Rust tokenizers (`Unigram::encode_optimized`): sums are compared where tokens end, and the cut found
 * first stays.
 *
 * @module
 */

/** What an unknown character costs below the least probable token. */
const unknownPenalty = 10;

/** A run of characters of a word; `id` is undefined where no token covers it. */
export interface UnigramRun {
  readonly id: number | undefined;
  readonly start: number;
  readonly end: number;
}

/** Cuts words by a vocabulary of tokens with log-probabilities. */
export class Unigram {
  readonly #ids: ReadonlyMap<string, number>;
  readonly #scores: readonly number[];
  readonly #longest: number;
  readonly #unknownScore: number;

  /** @param vocabulary Tokens with their log-probabilities, by id. */
  constructor(vocabulary: readonly (readonly [token: string, score: number])[]) {
    this.#ids = new Map(vocabulary.map(([token], id) => [token, id]));
    this.#scores = vocabulary.map(([, score]) => score);
    this.#longest = vocabulary.reduce((longest, [token]) => Math.max(longest, [...token].length), 0);
    this.#unknownScore = this.#scores.reduce((a, b) => Math.min(a, b), Infinity) - unknownPenalty;
  }

  /** Runs that cover the word in order; neighbouring unknown characters are one run. */
  cut(word: readonly string[]): UnigramRun[] {
    const best = this.#bestEnds(word);
    const runs: UnigramRun[] = [];
    for (let end = word.length; end > 0;) {
      const { start, id } = best[end]!;
      const after = runs.at(-1);
      if (id === undefined && after !== undefined && after.id === undefined) {
        runs[runs.length - 1] = { id, start, end: after.end };
      } else runs.push({ id, start, end });
      end = start;
    }
    return runs.reverse();
  }

  /** For every place in the word, the last token of the best cut up to it. */
  #bestEnds(word: readonly string[]): { start: number; id: number | undefined; score: number }[] {
    const best: { start: number; id: number | undefined; score: number }[] = [{ start: 0, id: undefined, score: 0 }];
    const offer = (end: number, candidate: { start: number; id: number | undefined; score: number }): void => {
      if (best[end] === undefined || candidate.score > best[end].score) best[end] = candidate;
    };
    for (let start = 0; start < word.length; start++) {
      const before = best[start]!.score; // every place is reached: a character without a token is an unknown one
      let token = "";
      for (let end = start + 1; end <= Math.min(word.length, start + this.#longest); end++) {
        token += word[end - 1]!;
        const id = this.#ids.get(token);
        if (id !== undefined) offer(end, { start, id, score: this.#scores[id]! + before });
      }
      if (!this.#ids.has(word[start]!)) offer(start + 1, { start, id: undefined, score: this.#unknownScore + before });
    }
    return best;
  }
}
