/**
 * Questions and answers, in the names of the Hugging Face question-answering contract.
 *
 * @module
 */

/** Parameters of the Hugging Face question-answering contract, by its names and with its defaults. */
export interface QuestionAnsweringParameters {
  /** How many answers to return at most; 1. */
  readonly top_k?: number;
  /** Tokens that two neighbouring windows of a long context share; the smaller of 128 and half of `max_seq_len`. */
  readonly doc_stride?: number;
  /** Longest answer in tokens; 15. */
  readonly max_answer_len?: number;
  /** Longest window in tokens, question and special tokens included; the smaller of 384 and what the model takes. */
  readonly max_seq_len?: number;
  /**
   * Accepted for the contract's sake. Hugging Face's pipeline shortens questions by it only with its slow tokenizers; with a
   * tokenizer.json, which is what tuckerd reads, it has no effect.
   */
  readonly max_question_len?: number;
  /** Whether "no answer" (an empty text) may compete; false. */
  readonly handle_impossible_answer?: boolean;
  /** Whether answers begin and end at words instead of tokens; true. */
  readonly align_to_words?: boolean;
}

/** Unit in which `start` and `end` are counted. */
export type OffsetUnit = "code_points" | "utf16";

/** One answer: `context` sliced from `start` to `end`, counted in Unicode code points or UTF-16 units as asked. */
export interface Answer {
  readonly answer: string;
  readonly score: number;
  readonly start: number;
  readonly end: number;
}

/** A question about a context. */
export interface Question {
  readonly question: string;
  readonly context: string;
  readonly parameters?: QuestionAnsweringParameters;
  /** Unit of `start` and `end`; Hugging Face's own is code points. */
  readonly offsets?: OffsetUnit;
}
