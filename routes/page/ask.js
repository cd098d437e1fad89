/**
 * Asking, and comparing two generations on one question.
 *
 * @module
 */
import { call } from "./api.js";
import { byId, element, percent } from "./dom.js";

/** Times that each generation is asked where two are compared; the median is shown. */
const RUNS = 7;

/** Sets up the form. */
export function setUpAsking() {
  byId("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter ?? event.target.querySelector("button");
    button.disabled = true;
    try {
      await ask();
    } finally {
      button.disabled = false;
    }
  });
}

async function ask() {
  const context = byId("context").value;
  const question = byId("question").value;
  const top_k = Math.max(1, Number(byId("top-k").value) || 1);
  const body = { inputs: { question, context }, parameters: { top_k, offsets: "utf16" } };
  const second = byId("second-generation").value;
  const generations = [byId("first-generation").value, ...(second === "none" ? [] : [second])];
  const runs = generations.length === 1 ? 1 : RUNS;
  const results = generations.map(() => ({ times: [], last: null, problem: null }));
  for (let run = 0; run < runs; run++) {
    // Taking turns keeps a busy moment from counting against one of the two.
    for (const [i, generation] of generations.entries()) {
      const result = results[i];
      if (result.problem) continue;
      try {
        result.last = await call("/", { method: "POST", body, generation });
        result.times.push(result.last.milliseconds);
      } catch (problem) {
        result.problem = problem;
      }
    }
  }
  byId("answers").replaceChildren(...results.map((result) => resultCard(result, context)), verdict(results));
}

function resultCard({ last, times, problem }, context) {
  if (problem) return element("div", { class: "answer" }, element("p", { class: "problem" }, problem.message));
  const answers = [last.data].flat();
  const [best] = answers;
  const milliseconds = median(times).toFixed(1);
  const timing = times.length === 1 ? `${milliseconds} ms` : `${milliseconds} ms, median of ${times.length}`;
  return element(
    "div",
    { class: "answer" },
    element("p", { class: "quiet" }, `Generation ${last.generation} · ${timing}`),
    element("strong", {}, best.answer === "" ? "No answer in this context" : best.answer),
    element("p", { class: "quiet" }, `Score ${percent(best.score)}`),
    answers.length > 1 && element(
      "ol",
      { start: 2 },
      ...answers.slice(1).map((answer) =>
        element("li", {}, `${answer.answer || "(none)"} `, element("span", { class: "quiet" }, percent(answer.score)))
      ),
    ),
    best.end > best.start && element(
      "p",
      { class: "source" },
      context.slice(0, best.start),
      element("mark", {}, context.slice(best.start, best.end)),
      context.slice(best.end),
    ),
  );
}

function verdict(results) {
  if (results.length < 2 || results.some((result) => result.problem)) return "";
  const [first, second] = results;
  const same = [first.last.data].flat()[0].answer === [second.last.data].flat()[0].answer;
  const times = median(second.times) / median(first.times);
  const speed = times >= 1 ? `${times.toFixed(2)} times as fast` : `${(1 / times).toFixed(2)} times slower`;
  return element(
    "p",
    { class: "quiet whole" },
    `${same ? "Same answer" : "Different answers"}; generation ${first.last.generation} is ${speed}${
      times >= 1 ? " as" : " than"
    } ` +
      `generation ${second.last.generation}, network included.`,
  );
}

function median(/** @type {number[]} */ values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
