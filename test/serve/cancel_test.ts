/** Cancelling a job of a served model: what serves is what served before, up to the moment when the new generation is added. */
import { assertEquals } from "@std/assert/mod.js";
import { bertQaFolder } from "../support/bert_qa.ts";
import { serve } from "../support/served.ts";

Deno.test("a job that is cancelled after its last layer adds no generation", async () => {
  await using server = await serve(bertQaFolder);
  const { compression } = server;
  const { id } = await compression.start({ mode: "4d-tucker", ranks: [8, 4, 4] });
  let layers = 0;
  for await (const { event } of compression.events(id, new AbortController().signal)) {
    if (event === "layer" && ++layers === 2) void compression.cancel(id);
  }
  assertEquals([layers, compression.job(id).state], [2, "cancelled"]);
  assertEquals(compression.generations().map(({ generation, active }) => [generation, active]), [[1, true]]);
});
