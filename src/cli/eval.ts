/**
 * `deno task eval`: accuracy of question answering on a data set, before and after compression.
 *
 * @module
 */
import type { EvalCommand } from "../config.ts";
import { type Accuracy, evaluate, type Evaluation } from "../eval/evaluate.ts";
import { type Example, readSquad } from "../eval/squad.ts";
import { print } from "../log.ts";
import { ModelServer } from "../serve/server.ts";
import { locateModel } from "./locate_model.ts";
import { DEFAULT_MODEL } from "./model.ts";
import { showProgress } from "./progress.ts";
import { table } from "./tables.ts";

/** Answers every question twice: by the dense model (generation 1) and by the compressed one (generation 2). */
export async function evaluateTask(command: EvalCommand): Promise<void> {
  const examples = await readSquad(command.dataset);
  await using server = new ModelServer({
    model: command.model ?? DEFAULT_MODEL,
    locate: locateModel,
    compression: { mode: "none" },
    device: command.device,
    inference: command.inference,
    cacheFolder: command.cacheDir === "off" ? undefined : command.cacheDir,
    queue: 64,
    generations: 2,
  }, "eval");
  await server.ready;
  const before = await run(server, examples, "before");
  const job = await server.compression.start({ mode: "4d-tucker", ...command.compression });
  const { report, error } = await server.compression.finished(job.id);
  if (report === undefined) throw new Error(error?.detail ?? "the compression was cancelled");
  const after = await run(server, examples, "after");
  if (command.json) return print(JSON.stringify({ dataset: command.dataset, before, after, report }, null, 2));
  const heading = ["", "questions", "EM before", "EM after", "F1 before", "F1 after"];
  const row = (name: string, a: Accuracy, b: Accuracy) => [
    name,
    String(a.count),
    ...[a.exactMatch, b.exactMatch, a.f1, b.f1].map((value) => (100 * value).toFixed(1)),
  ];
  print(table([
    heading,
    row("all", before.all, after.all),
    row("answerable", before.answerable, after.answerable),
    row("unanswerable", before.unanswerable, after.unanswerable),
    ...Object.entries(before.categories).map(([name, a]) => row(name, a, after.categories[name]!)),
  ]));
  const errors = report.layers.map((layer) => layer.relativeError.toFixed(3));
  print(
    `\nattention compressed ${report.totals.compressionRatio.toFixed(2)} times; relative error by layer ${
      errors.join(", ")
    }`,
  );
}

async function run(server: ModelServer, examples: readonly Example[], label: string): Promise<Evaluation> {
  const parameters = { handle_impossible_answer: true };
  return await evaluate(examples, async ({ question, context }) => {
    const { answers } = await server.questionAnswering.answer({ question, context, parameters }, {});
    return answers[0]?.answer ?? "";
  }, showProgress(label));
}
