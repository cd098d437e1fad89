import { assertAlmostEquals, assertEquals } from "@std/assert/mod.js";
import { evaluate } from "../../src/eval/evaluate.ts";
import { exactMatch, f1, normalizeAnswer } from "../../src/eval/metrics.ts";

Deno.test("answers are compared as SQuAD does", () => {
  assertEquals(normalizeAnswer("  The  quick, brown FOX! "), "quick brown fox");
  assertEquals(normalizeAnswer("an apple a day"), "apple day");
  assertEquals(normalizeAnswer("theatre"), "theatre");
  assertEquals(exactMatch("the Alps", ["Alps"]), 1);
  assertEquals(exactMatch("Alps", ["Andes", "alps."]), 1);
  assertEquals(exactMatch("Alp", ["Alps"]), 0);
  assertEquals(exactMatch("", []), 1);
  assertEquals(exactMatch("x", []), 0);
});

Deno.test("F1 counts shared words with their number", () => {
  // "green green house" against "green house": 2 shared, precision 2/3, recall 1.
  assertAlmostEquals(f1("green green house", ["green house"]), 0.8, 1e-12);
  assertEquals(f1("red", ["green"]), 0);
  assertAlmostEquals(f1("in 1987", ["1987", "year 1987 AD"]), 2 / 3, 1e-12);
  assertEquals(f1("", []), 1);
  assertEquals(f1("word", []), 0);
});

Deno.test("accuracy is the mean over all, over both kinds, and by category", async () => {
  const example = (id: string, answers: string[]) => ({ id, question: "q", context: "c", answers });
  const examples = [
    example("who-1", ["ada"]),
    example("who-2", ["bob"]),
    example("when-1", ["1900"]),
    example("when-2", []),
  ];
  const given: Record<string, string> = { "who-1": "Ada", "who-2": "bob jones", "when-1": "", "when-2": "" };
  const { all, answerable, unanswerable, categories } = await evaluate(
    examples,
    ({ id }) => Promise.resolve(given[id]!),
  );
  assertEquals([all.count, all.exactMatch], [4, 0.5]);
  assertAlmostEquals(all.f1, (1 + 2 / 3 + 0 + 1) / 4, 1e-12);
  assertEquals([answerable.count, unanswerable.count, unanswerable.exactMatch], [3, 1, 1]);
  assertEquals(Object.keys(categories), ["when-", "who-"]);
  assertEquals(categories["who-"]!.exactMatch, 0.5);
});
