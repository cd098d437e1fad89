/**
 * Accuracy of extractive question answering over a data set.
 *
 * @module
 */
import { exactMatch, f1 } from "./metrics.ts";
import type { Example } from "./squad.ts";

/** Mean exact match and F1 (0 to 1) of a group of questions. */
export interface Accuracy {
  readonly count: number;
  readonly exactMatch: number;
  readonly f1: number;
}

/** Accuracy over all questions, over those with and without an answer, and by the first part of the question's id. */
export interface Evaluation {
  readonly all: Accuracy;
  readonly answerable: Accuracy;
  readonly unanswerable: Accuracy;
  readonly categories: Readonly<Record<string, Accuracy>>;
}

/** Answers one question; the empty text means that the passage doesn't answer it. */
export type Answerer = (example: Example) => Promise<string>;

/** Questions asked at a time: keeps tokenising and running overlapped. */
const concurrency = 4;

/**
 * Asks every question and scores the answers.
 *
 * @param onProgress called with the share done, 0 to 1
 */
export async function evaluate(
  examples: readonly Example[],
  answer: Answerer,
  onProgress: (share: number) => void = () => {},
): Promise<Evaluation> {
  const scores: { readonly example: Example; readonly exactMatch: number; readonly f1: number }[] = [];
  const queue = examples.values();
  const worker = async () => {
    for (const example of queue) {
      const given = await answer(example);
      scores.push({ example, exactMatch: exactMatch(given, example.answers), f1: f1(given, example.answers) });
      onProgress(scores.length / examples.length);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));

  const mean = (of: typeof scores): Accuracy => ({
    count: of.length,
    exactMatch: of.reduce((sum, score) => sum + score.exactMatch, 0) / of.length,
    f1: of.reduce((sum, score) => sum + score.f1, 0) / of.length,
  });
  const groups = Map.groupBy(scores, (score) => score.example.id.split(/[^a-z_ -]/i)[0] ?? "");
  return {
    all: mean(scores),
    answerable: mean(scores.filter((score) => score.example.answers.length > 0)),
    unanswerable: mean(scores.filter((score) => score.example.answers.length === 0)),
    categories: Object.fromEntries([...groups].sort().map(([category, group]) => [category, mean(group)])),
  };
}
