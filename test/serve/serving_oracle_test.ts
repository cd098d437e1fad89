/**
 * The question-answering route against Hugging Face's own pipeline, dense and after one layer was compressed to half ranks.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { createApp } from "../../routes/app.ts";
import { bertQaFolder } from "../support/bert_qa.ts";
import { serve } from "../support/served.ts";

interface Expected {
  readonly answer: string;
  readonly score: number;
  readonly start: number;
  readonly end: number;
  readonly start_utf16: number;
  readonly end_utf16: number;
}
type Variant = "answer" | "top3" | "no_word_alignment" | "impossible_allowed" | "max_answer_len_5" | "after_half";
type Case =
  & { readonly id: number; readonly question: string; readonly context: string }
  & {
    readonly [K in Variant]?: readonly Expected[];
  };

const expected = JSON.parse(await Deno.readTextFile(`${bertQaFolder}expected.json`)) as { cases: readonly Case[] };

const parameters: Record<Variant, Record<string, unknown>> = {
  answer: {},
  top3: { top_k: 3 },
  no_word_alignment: { align_to_words: false },
  impossible_allowed: { handle_impossible_answer: true },
  max_answer_len_5: { max_answer_len: 5 },
  after_half: {},
};

async function post(app: ReturnType<typeof createApp>, path: string, body: unknown): Promise<Response> {
  return await app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

Deno.test("POST / answers every case as Hugging Face's pipeline does, before and after compression", async (test) => {
  await using server = await serve(bertQaFolder);
  const app = createApp(server, { loopback: true });

  async function compare(variant: Variant, offsets: "code_points" | "utf16"): Promise<void> {
    let compared = 0;
    for (const { id, question, context, [variant]: answers } of expected.cases) {
      if (answers === undefined) continue;
      const response = await post(app, "/", {
        inputs: { question, context },
        parameters: { ...parameters[variant], offsets },
      });
      const given = await response.json();
      assertEquals(response.status, 200, `case ${id}: ${JSON.stringify(given)}`);
      const list = Array.isArray(given) ? given : [given];
      assertEquals(list.length, answers.length, `case ${id}`);
      for (const [i, want] of answers.entries()) {
        const [start, end] = offsets === "utf16" ? [want.start_utf16, want.end_utf16] : [want.start, want.end];
        const { answer, score, ...place } = list[i];
        assertEquals([answer, place.start, place.end], [want.answer, start, end], `case ${id}`);
        assert(Math.abs(score - want.score) <= 1e-4, `case ${id}: score ${score}, expected ${want.score}`);
        if (offsets === "utf16") assertEquals(context.slice(start, end), answer, `case ${id}`);
      }
      compared++;
    }
    assert(compared >= 20, `only ${compared} cases were compared`);
  }

  for (const variant of ["answer", "top3", "no_word_alignment", "impossible_allowed", "max_answer_len_5"] as const) {
    await test.step(variant, () => compare(variant, "code_points"));
  }
  await test.step("answer, offsets as JavaScript counts", () => compare("answer", "utf16"));
  await test.step("a question that leaves no room for the context is refused", async () => {
    const inputs = { question: "who ".repeat(38), context: "a long context ".repeat(40) };
    const response = await post(app, "/", { inputs });
    assertEquals(response.status, 422, await response.text());
  });
  await test.step("after_half", async () => {
    const response = await post(app, "/v1/compression?wait=true", {
      mode: "4d-tucker",
      ranks: [16, 4, 2],
      layers: "1",
    });
    const report = await response.json();
    assertEquals(response.status, 200, JSON.stringify(report));
    assertEquals([report.generation, report.layers[0].mode, report.layers[1].ranks], [2, "none", [16, 4, 2]]);
    await compare("after_half", "code_points");
  });
});
