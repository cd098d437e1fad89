/**
 * Exact match and F1 of SQuAD (Rajpurkar et al. 2016, 2018): answers are lower-cased and stripped of punctuation, articles and
 * extra white space before they are compared; an unanswerable question is right when the answer is empty.
 *
 * @module
 */

/** What SQuAD compares: lower case, no ASCII punctuation, no a/an/the, single spaces. */
export function normalizeAnswer(text: string): string {
  return text.toLowerCase()
    .replace(/[!-/:-@[-`{-~]/g, "")
    .replace(/\b(a|an|the)\b/g, " ")
    .split(/\s+/).filter((word) => word !== "").join(" ");
}

/** 1 if the answer equals one of the accepted ones, else 0. No accepted answers: the right answer is the empty one. */
export function exactMatch(answer: string, accepted: readonly string[]): number {
  const given = normalizeAnswer(answer);
  return orEmpty(accepted).some((text) => normalizeAnswer(text) === given) ? 1 : 0;
}

/** Largest F1 over words against the accepted answers; where either is empty, 1 if both are. */
export function f1(answer: string, accepted: readonly string[]): number {
  return Math.max(...orEmpty(accepted).map((text) => wordF1(words(answer), words(text))));
}

function orEmpty(accepted: readonly string[]): readonly string[] {
  return accepted.length === 0 ? [""] : accepted;
}

function words(text: string): string[] {
  return normalizeAnswer(text).split(" ").filter((word) => word !== "");
}

function wordF1(given: readonly string[], wanted: readonly string[]): number {
  if (given.length === 0 || wanted.length === 0) return given.length === wanted.length ? 1 : 0;
  const left = new Map<string, number>();
  for (const word of wanted) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of given) {
    const count = left.get(word) ?? 0;
    if (count > 0) common++;
    left.set(word, count - 1);
  }
  if (common === 0) return 0;
  const [precision, recall] = [common / given.length, common / wanted.length];
  return 2 * precision * recall / (precision + recall);
}
