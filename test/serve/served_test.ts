/** What a served model tells of itself. */
import { assertEquals } from "@std/assert/mod.js";
import { bertQaFolder } from "../support/bert_qa.ts";
import { serve } from "../support/served.ts";

Deno.test("answers are counted, and the spectrum is that of every layer, whichever are compressed", async () => {
  await using server = await serve(bertQaFolder, { ranks: [16, 8, 4], layers: "1" });
  const answered = () => server.metrics().find(({ name }) => name === "answers_total")!.samples[0]!.value;
  assertEquals(answered(), 0);
  const question = { question: "Where was Marta born?", context: "Marta was born in Osterby." };
  for (let i = 0; i < 2; i++) await server.questionAnswering.answer(question, {});
  assertEquals(answered(), 2);
  const { layers } = await server.compression.spectrum();
  assertEquals(layers.map(({ layer, shape }) => [layer, ...shape]), [[0, 32, 8, 4, 4], [1, 32, 8, 4, 4]]);
  assertEquals(server.compression.report().layers.map(({ mode }) => mode), ["none", "4d-tucker"]);
});
