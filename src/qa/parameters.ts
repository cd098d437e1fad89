/**
 * The parameters of a question with Hugging Face's defaults, checked.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { QuestionAnsweringParameters } from "./types.ts";

/** Longest window unless another is asked for, as in Hugging Face's pipeline. */
const defaultSequenceLength = 384;
/** Largest default of `doc_stride`, as in Hugging Face's pipeline. */
const defaultStride = 128;

/** Every parameter with its value. */
export type CheckedParameters = Required<QuestionAnsweringParameters>;

/** Fills in defaults; throws `invalid` naming the field, the rule and the value. */
export function checkParameters(given: QuestionAnsweringParameters, maxInputTokens: number): CheckedParameters {
  const maxSeqLen = given.max_seq_len ?? Math.min(maxInputTokens, defaultSequenceLength);
  const parameters: CheckedParameters = {
    top_k: given.top_k ?? 1,
    doc_stride: given.doc_stride ?? Math.min(Math.floor(maxSeqLen / 2), defaultStride),
    max_answer_len: given.max_answer_len ?? 15,
    max_seq_len: maxSeqLen,
    max_question_len: given.max_question_len ?? 64,
    handle_impossible_answer: given.handle_impossible_answer ?? false,
    align_to_words: given.align_to_words ?? true,
  };
  checkInteger("top_k", parameters.top_k, 1);
  checkInteger("max_answer_len", parameters.max_answer_len, 1);
  checkInteger("max_question_len", parameters.max_question_len, 1);
  checkInteger("max_seq_len", parameters.max_seq_len, 1, maxInputTokens, "the model's longest input");
  checkInteger("doc_stride", parameters.doc_stride, 0, parameters.max_seq_len, "max_seq_len");
  return parameters;
}

/** Throws `invalid` for a text that can't be asked. */
export function checkText(field: "question" | "context", text: string): void {
  if (text === "") {
    throw new TuckerdError("invalid", `${field} must have at least one character, got an empty text`, {
      fields: { field, value: "" },
    });
  }
  if (!text.isWellFormed()) {
    throw new TuckerdError("invalid", `${field} must be Unicode text, got one with lone surrogates`, {
      fields: { field },
    });
  }
}

function checkInteger(field: string, value: number, least: number, most = Infinity, mostIs = ""): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const rule = most === Infinity
    ? `an integer of at least ${least}`
    : `an integer from ${least} to ${most} (${mostIs})`;
  throw new TuckerdError("invalid", `${field} must be ${rule}, got ${value}`, { fields: { field, value } });
}
