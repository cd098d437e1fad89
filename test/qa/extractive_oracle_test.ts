/**
 * The question-answering pipeline of transformers 4.57.6, case by case, on a dense model in the engine's real worker.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";
import type { Answer, QuestionAnsweringParameters } from "../../src/qa/types.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import { bertQaFolder, bertQaOn } from "../support/bert_qa.ts";

interface ExpectedAnswer {
  readonly answer: string;
  readonly score: number;
  readonly start: number;
  readonly end: number;
  readonly start_utf16: number;
  readonly end_utf16: number;
}

type Variant = "answer" | "top3" | "no_word_alignment" | "impossible_allowed" | "max_answer_len_5";

type Case = Readonly<Record<Variant, readonly ExpectedAnswer[]>> & {
  readonly id: number;
  readonly question: string;
  readonly context: string;
  readonly windows: readonly {
    readonly input_ids: readonly number[];
    readonly offsets?: readonly [number, number][];
  }[];
};

const { cases } = JSON.parse(await Deno.readTextFile(`${bertQaFolder}expected.json`)) as { cases: readonly Case[] };

const variants: Record<Variant, QuestionAnsweringParameters> = {
  answer: {},
  top3: { top_k: 3 },
  no_word_alignment: { align_to_words: false },
  impossible_allowed: { handle_impossible_answer: true },
  max_answer_len_5: { max_answer_len: 5 },
};

function assertAnswers(actual: readonly Answer[], expected: readonly ExpectedAnswer[], what: string): void {
  const shown = `${what}\n got ${JSON.stringify(actual)}\nwant ${JSON.stringify(expected)}`;
  assertEquals(
    actual.map(({ answer, start, end }) => ({ answer, start, end })),
    expected.map(({ answer, start, end }) => ({ answer, start, end })),
    shown,
  );
  actual.forEach(({ score }, index) => {
    const difference = Math.abs(score - expected[index]!.score);
    assert(difference <= 1e-4, shown);
  });
}

for (const variant of Object.keys(variants) as Variant[]) {
  Deno.test(`extractive: ${variant} of every case equals Hugging Face's pipeline`, async () => {
    await using engine = await createEngine({ provider: "cpu" });
    const extractive = await bertQaOn(engine);
    for (const { id, question, context, ...expected } of cases) {
      const answers = await extractive.answer({ question, context, parameters: variants[variant] });
      assertAnswers(answers, expected[variant], `case ${id}, ${variant}`);
    }
  });
}

Deno.test("extractive: UTF-16 offsets slice the context in JavaScript", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  const extractive = await bertQaOn(engine);
  for (const { id, question, context, answer: [expected] } of cases) {
    const [answer] = await extractive.answer({ question, context, offsets: "utf16" });
    assertEquals([answer!.start, answer!.end], [expected!.start_utf16, expected!.end_utf16], `case ${id}`);
    assertEquals(context.slice(answer!.start, answer!.end), answer!.answer, `case ${id}`);
  }
});

Deno.test("extractive: windows have Hugging Face's ids and offsets", async () => {
  const tokenizer = await loadTokenizer(bertQaFolder);
  for (const { id, question, context, windows } of cases) {
    const actual = tokenizer.encodePair(question, context, { maxLength: 64, stride: 32 });
    assertEquals(actual.map(({ ids }) => ids), windows.map(({ input_ids }) => input_ids), `ids of case ${id}`);
    windows.forEach(({ offsets }, index) => {
      const { starts, ends } = actual[index]!;
      if (offsets !== undefined) {
        assertEquals(starts.map((start, token) => [start, ends[token]]), offsets, `offsets of case ${id}`);
      }
    });
  }
});

Deno.test("extractive: a question that leaves the stride no room is invalid, and Hugging Face's limit is ours", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  const extractive = await bertQaOn(engine);
  // max_seq_len 64, doc_stride 32, 3 special tokens: 28 question tokens leave 33 for the context, 29 leave 32.
  const context = "the tower ".repeat(40);
  const [answer] = await extractive.answer({ question: "a ".repeat(28), context });
  assert(answer !== undefined && answer.score > 0);
  const error = await assertRejects(() => extractive.answer({ question: "a ".repeat(29), context }), TuckerdError);
  assertEquals(error.kind, "invalid");
  assertEquals(error.fields, { field: "question", max_seq_len: 64, doc_stride: 32, room: 32 });
  // A short context needs no windows, so the stride doesn't matter.
  await extractive.answer({ question: "a ".repeat(29), context: "the tower" });
});
