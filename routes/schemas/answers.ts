/**
 * The Hugging Face question-answering contract.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { integer } from "./integer.ts";

const text = (what: string): z.ZodString => z.string().regex(/\S/, "must not be empty").openapi({ description: what });

/** Parameters by Hugging Face's names, and the unit of the offsets. */
export const QuestionAnsweringParameters = z.strictObject({
  top_k: integer(1).max(1000).optional().openapi({
    description: "Number of answers; above 1 the response is an array, best first. Default 1.",
  }),
  doc_stride: integer(0).optional().openapi({
    description:
      "Tokens by which the windows of a long context overlap. Default: 128, or half of `max_seq_len` where less.",
  }),
  max_answer_len: integer(1).optional().openapi({ description: "Longest answer in tokens. Default 15." }),
  max_seq_len: integer(1).optional().openapi({
    description: "Longest window in tokens, question included. Default: 384, or what the model takes where less.",
  }),
  max_question_len: integer(1).optional().openapi({
    description:
      "Taken for the contract's sake: with a tokenizer.json, Hugging Face's pipeline doesn't cut questions either.",
  }),
  handle_impossible_answer: z.boolean().optional().openapi({
    description: "Whether the empty answer competes, for questions that the context doesn't answer. Default false.",
  }),
  align_to_words: z.boolean().optional().openapi({
    description: "Whether answers are widened to whole words. Default true.",
  }),
  offsets: z.enum(["code_points", "utf16"]).optional().openapi({
    description:
      "Unit of `start` and `end`. Hugging Face counts Unicode code points, the default: in JavaScript the answer is " +
      '`[...context].slice(start, end).join("")`. With `utf16` it is `context.slice(start, end)`.',
  }),
}).openapi("QuestionAnsweringParameters");

const Inputs = z.strictObject({ question: text("What is asked."), context: text("The text that holds the answer.") })
  .openapi("QuestionAnsweringInputs");

/** Body of `POST /`. */
export const QuestionAnsweringRequest = z.preprocess(
  unwrapped,
  z.strictObject({
    inputs: Inputs,
    parameters: QuestionAnsweringParameters.optional(),
    options: z.record(z.string(), z.unknown()).optional().openapi({
      description:
        "What older Hugging Face clients send beside the parameters (`wait_for_model`, `use_cache`); it changes nothing here.",
    }),
  }).openapi("QuestionAnsweringRequest", {
    description: "`{question, context, parameters?}` without `inputs` is taken too.",
    example: {
      inputs: {
        question: "Who designed the bridge?",
        context: "The bridge was designed by Ada Marlow and opened in 1931.",
      },
      parameters: { top_k: 1 },
    },
  }),
);

/** Hugging Face's servers take the inputs without their wrapper as well. */
function unwrapped(body: unknown): unknown {
  if (typeof body !== "object" || body === null || "inputs" in body) return body;
  if (!("question" in body || "context" in body)) return body;
  const { question, context, ...rest } = body as Record<string, unknown>;
  return {
    inputs: { ...(question === undefined ? {} : { question }), ...(context === undefined ? {} : { context }) },
    ...rest,
  };
}

/** One answer. */
export const Answer = z.object({
  answer: z.string().openapi({ description: "`context` from `start` to `end`." }),
  score: z.number().openapi({ description: "Probability; equal answers of several windows add up." }),
  start: z.int().min(0),
  end: z.int().min(0),
}).openapi("Answer", { example: { answer: "Ada Marlow", score: 0.97, start: 27, end: 37 } });

/** What `POST /` answers. */
export const AnswerOrAnswers = z.union([Answer, z.array(Answer).readonly()]).openapi("AnswerOrAnswers", {
  description: "One answer for `top_k` 1, an array for more.",
});
