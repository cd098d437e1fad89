/**
 * Answers of Hugging Face's pipeline under many parameters (made by testdata/pipeline/make_cases.py): up to dozens of windows,
 * special tokens typed by the user, every window run alone there and padded in batches here.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import type { Answer, QuestionAnsweringParameters } from "../../src/qa/types.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import { bertQaOn } from "../support/bert_qa.ts";

interface Case {
  readonly question: string;
  readonly context: string;
  readonly windows: number;
  readonly parameters: QuestionAnsweringParameters;
  readonly answers: readonly Answer[];
}

Deno.test("extractive: 80 questions with random parameters are answered as by Hugging Face's pipeline", async () => {
  const cases: readonly Case[] = JSON.parse(
    await Deno.readTextFile(new URL("../testdata/pipeline/cases.json", import.meta.url)),
  );
  assertEquals(cases.length, 80);
  await using engine = await createEngine({ provider: "cpu" });
  let windows = 0;
  const extractive = await bertQaOn(engine, (run) => (inputs) => {
    windows += inputs["input_ids"]!.shape[0]!;
    return run(inputs);
  });
  for (const expected of cases) {
    windows = 0;
    const answers = await extractive.answer(expected);
    const shown = JSON.stringify({ ...expected, got: answers });
    assertEquals(windows, expected.windows, shown);
    const places = (list: readonly Answer[]): unknown => list.map(({ answer, start, end }) => ({ answer, start, end }));
    assertEquals(places(answers), places(expected.answers), shown);
    answers.forEach(({ score }, index) => assert(Math.abs(score - expected.answers[index]!.score) <= 1e-5, shown));
  }
});
