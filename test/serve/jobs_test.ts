import { assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import type { CompressionReport } from "../../src/compress/artifact.ts";
import { TuckerdError } from "../../src/errors.ts";
import { type JobProgress, Jobs } from "../../src/serve/jobs.ts";
import type { Job, JobEvent } from "../../src/serve/services.ts";

const report = { generation: 2 } as CompressionReport;

/** Work that a test steps through. */
function stepped(): {
  work: (progress: JobProgress, signal: AbortSignal) => Promise<{ generation: number; report: CompressionReport }>;
  progress: Promise<JobProgress>;
  end: PromiseWithResolvers<{ generation: number; report: CompressionReport }>;
} {
  const progress = Promise.withResolvers<JobProgress>();
  const end = Promise.withResolvers<{ generation: number; report: CompressionReport }>();
  return {
    work: (given, signal) => {
      progress.resolve(given);
      signal.addEventListener("abort", () => end.reject(signal.reason));
      return end.promise;
    },
    progress: progress.promise,
    end,
  };
}

Deno.test("a job runs, tells each layer, and ends with its generation", async () => {
  const jobs = new Jobs();
  const { work, progress, end } = stepped();
  const job = jobs.start({ ranks: [1, 1, 1] }, work);
  const seen: JobEvent[] = [];
  const watching = (async () => {
    for await (const event of jobs.events(job.id, new AbortController().signal)) seen.push(event);
  })();
  const tell = await progress;
  tell.begin(2);
  tell.layer({ layer: 0, name: "a", relativeError: 0.5 });
  tell.layer({ layer: 1, name: "b", relativeError: 0.25 });
  end.resolve({ generation: 2, report });
  await watching;
  assertEquals(seen.map((event) => event.event), ["state", "state", "layer", "layer", "state"]);
  const last = seen.at(-1)!.data as Job;
  assertEquals([last.state, last.progress, last.generation, last.layers], ["succeeded", 1, 2, { done: 2, total: 2 }]);
  assertEquals(jobs.get(job.id), last);
});

Deno.test("one job at a time, and the next one after it", async () => {
  const jobs = new Jobs();
  const first = stepped();
  const job = jobs.start({}, first.work);
  const error = assertThrows(() => jobs.start({}, first.work), TuckerdError);
  assertEquals([error.kind, error.fields["job"]], ["conflict", job.id]);
  first.end.reject(new TuckerdError("failed", "the disk is full"));
  const ended = await jobs.finished(job.id);
  assertEquals([ended.state, ended.error], ["failed", { kind: "failed", detail: "the disk is full" }]);
  const second = stepped();
  jobs.start({}, second.work);
  second.end.resolve({ generation: 3, report });
});

Deno.test("a cancelled job ends as cancelled; a finished one stays as it was", async () => {
  const jobs = new Jobs();
  const { work } = stepped();
  const job = jobs.start({}, work);
  assertEquals((await jobs.cancel(job.id)).state, "cancelled");
  const other = stepped();
  const done = jobs.start({}, other.work);
  other.end.resolve({ generation: 4, report });
  await jobs.finished(done.id);
  assertEquals((await jobs.cancel(done.id)).state, "succeeded");
  await assertRejects(() => Promise.resolve().then(() => jobs.cancel("nothing")), TuckerdError, "nothing");
});

Deno.test("a watcher that goes away stops being told", async () => {
  const jobs = new Jobs();
  const { work, end } = stepped();
  const job = jobs.start({}, work);
  const away = new AbortController();
  const events = jobs.events(job.id, away.signal);
  assertEquals((await events.next()).done, false);
  const next = events.next();
  away.abort();
  assertEquals((await next).done, true);
  end.resolve({ generation: 5, report });
  await jobs.finished(job.id);
});

Deno.test("the end is one step more than the layers, and a layer more than was foretold is counted", async () => {
  const jobs = new Jobs();
  const { work, progress, end } = stepped();
  const { id } = jobs.start({}, work);
  const tell = await progress;
  tell.begin(2);
  const seen = ["a", "b", "c"].map((name, layer) => {
    tell.layer({ layer, name, relativeError: 0.5 });
    const { progress, layers } = jobs.get(id);
    return [progress, layers.done, layers.total];
  });
  assertEquals(seen, [[1 / 3, 1, 2], [2 / 3, 2, 2], [3 / 4, 3, 3]]);
  end.resolve({ generation: 2, report });
  assertEquals((await jobs.finished(id)).progress, 1);
});
