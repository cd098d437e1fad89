/**
 * From spans of tokens to answers: slices of the context, equal texts merged, as Hugging Face's question-answering pipeline
 * does it (`postprocess`).
 *
 * @module
 */
import type { Encoding } from "./encoding.ts";
import type { CheckedParameters } from "./parameters.ts";
import type { WindowSpans } from "./spans.ts";
import type { Answer, OffsetUnit } from "./types.ts";

/** The answers to one question, gathered window by window. */
export class AnswerList {
  /** Spans that a window contributes: more than asked for if words are aligned, since some become equal. */
  readonly candidatesPerWindow: number;
  readonly #context: readonly string[];
  readonly #parameters: CheckedParameters;
  /** By lower-case text, in order of first appearance. */
  readonly #answers = new Map<string, { answer: string; score: number; start: number; end: number }>();
  #nullScore = Infinity;

  constructor(context: string, parameters: CheckedParameters) {
    this.#context = [...context];
    this.#parameters = parameters;
    this.candidatesPerWindow = parameters.align_to_words ? parameters.top_k * 2 + 10 : parameters.top_k;
  }

  /** Adds a window's spans; the scores of equal texts (but for case) are added up. */
  addWindow(window: Encoding, { spans, nullScore }: WindowSpans): void {
    this.#nullScore = Math.min(this.#nullScore, nullScore);
    for (const { start: firstToken, end: lastToken, score } of spans) {
      const [start, end] = this.#characters(window, firstToken, lastToken);
      const answer = this.#context.slice(start, end).join("");
      const key = answer.toLowerCase();
      const equal = this.#answers.get(key);
      if (equal === undefined) this.#answers.set(key, { answer, score, start, end });
      else equal.score += score;
    }
  }

  /** The best answers; an empty one of score 0 where there is none at all. */
  best(unit: OffsetUnit): Answer[] {
    const answers: Answer[] = [...this.#answers.values()];
    if (this.#parameters.handle_impossible_answer) {
      answers.push({ answer: "", score: this.#nullScore, start: 0, end: 0 });
    }
    if (answers.length === 0) answers.push({ answer: "", score: 0, start: 0, end: 0 });
    answers.sort((a, b) => b.score - a.score);
    return answers.slice(0, this.#parameters.top_k).map((answer) => ({
      answer: answer.answer,
      score: answer.score,
      start: this.#offset(answer.start, unit),
      end: this.#offset(answer.end, unit),
    }));
  }

  /** Code points of the context behind a span of tokens, widened to whole words if asked. */
  #characters(window: Encoding, firstToken: number, lastToken: number): [number, number] {
    const exact: [number, number] = [window.starts[firstToken]!, window.ends[lastToken]!];
    if (!this.#parameters.align_to_words) return exact;
    const firstWord = contextWord(window, window.words[firstToken]!);
    const lastWord = contextWord(window, window.words[lastToken]!);
    return firstWord === undefined || lastWord === undefined ? exact : [firstWord[0], lastWord[1]];
  }

  #offset(codePoints: number, unit: OffsetUnit): number {
    if (unit === "code_points") return codePoints;
    return this.#context.slice(0, codePoints).reduce((units, character) => units + character.length, 0);
  }
}

/** Code points of the context's word with this number, as far as the window has it; undefined where it has none. */
function contextWord(window: Encoding, word: number): [number, number] | undefined {
  if (word < 0) return undefined;
  const isPart = (index: number): boolean => window.sequences[index] === 1 && window.words[index] === word;
  const first = window.words.findIndex((_, index) => isPart(index));
  if (first < 0) return undefined;
  const last = window.words.findLastIndex((_, index) => isPart(index));
  return [window.starts[first]!, window.ends[last]!];
}
