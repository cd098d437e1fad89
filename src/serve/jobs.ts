/**
 * Compression jobs: one runs at a time, every one can be watched and cancelled, and the last ones stay readable.
 *
 * @module
 */
import type { CompressionReport } from "../compress/artifact.ts";
import { TuckerdError } from "../errors.ts";
import type { CompressionRequest, Job, JobEvent } from "./services.ts";

/** Finished jobs that stay readable. */
const keptJobs = 64;

/** How a job tells of its work. */
export interface JobProgress {
  /** How many layers the job will decompose. */
  readonly begin: (layers: number) => void;
  readonly layer: (done: { readonly layer: number; readonly name: string; readonly relativeError: number }) => void;
}

/** The work of one job: makes a generation serve, and tells which. */
export type JobWork = (
  progress: JobProgress,
  signal: AbortSignal,
) => Promise<{ readonly generation: number; readonly report: CompressionReport }>;

interface Entry {
  job: Job;
  readonly abort: AbortController;
  readonly done: PromiseWithResolvers<Job>;
  readonly listeners: Set<(event: JobEvent) => void>;
}

/** All jobs of a server. */
export class Jobs {
  readonly #entries = new Map<string, Entry>();
  #running: Entry | undefined;

  /**
   * Starts a job.
   *
   * @throws TuckerdError `conflict` naming the job that runs
   */
  start(request: CompressionRequest, work: JobWork): Job {
    if (this.#running !== undefined) {
      throw new TuckerdError(
        "conflict",
        `job ${this.#running.job.id} is re-running the compression; one runs at a time: wait for it or cancel it`,
        { fields: { job: this.#running.job.id } },
      );
    }
    const entry: Entry = {
      job: {
        id: crypto.randomUUID(),
        state: "running",
        request,
        progress: 0,
        layers: { done: 0, total: 0 },
        createdAt: new Date().toISOString(),
      },
      abort: new AbortController(),
      done: Promise.withResolvers<Job>(),
      listeners: new Set(),
    };
    this.#entries.set(entry.job.id, entry);
    this.#running = entry;
    void this.#drive(entry, work);
    return entry.job;
  }

  /** @throws TuckerdError `not-found` */
  get(id: string): Job {
    return this.#entry(id).job;
  }

  /** Resolves with the final state. */
  finished(id: string): Promise<Job> {
    return this.#entry(id).done.promise;
  }

  /** Asks a job to stop; a finished one stays as it is. */
  cancel(id: string): Promise<Job> {
    const entry = this.#entry(id);
    entry.abort.abort(new TuckerdError("cancelled", "the job was cancelled"));
    return entry.done.promise;
  }

  /** The present state, then every change until the job is final or `signal` is aborted. */
  async *events(id: string, signal: AbortSignal): AsyncGenerator<JobEvent> {
    const entry = this.#entry(id);
    const queue: JobEvent[] = [{ event: "state", data: entry.job }];
    let wake = Promise.withResolvers<void>();
    const listener = (event: JobEvent) => {
      queue.push(event);
      wake.resolve();
    };
    const stop = () => wake.resolve();
    entry.listeners.add(listener);
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        const next = queue.shift();
        if (next !== undefined) {
          yield next;
          if (next.event === "state" && isFinal(next.data as Job)) return;
        } else {
          await wake.promise;
          wake = Promise.withResolvers<void>();
        }
      }
    } finally {
      entry.listeners.delete(listener);
      signal.removeEventListener("abort", stop);
    }
  }

  /** Cancels whatever runs and waits for its end. */
  async stop(): Promise<void> {
    if (this.#running !== undefined) await this.cancel(this.#running.job.id);
  }

  async #drive(entry: Entry, work: JobWork): Promise<void> {
    const progress: JobProgress = {
      begin: (total) => this.#update(entry, { layers: { done: 0, total } }),
      layer: (layer) => {
        const done = entry.job.layers.done + 1;
        const total = Math.max(done, entry.job.layers.total);
        entry.job = { ...entry.job, layers: { done, total }, progress: done / (total + 1) };
        this.#tell(entry, { event: "layer", data: layer });
      },
    };
    let outcome: Partial<Job>;
    try {
      const { generation, report } = await work(progress, entry.abort.signal);
      outcome = { state: "succeeded", progress: 1, generation, report };
    } catch (thrown) {
      const error = TuckerdError.from(thrown);
      outcome = {
        state: error.kind === "cancelled" ? "cancelled" : "failed",
        error: { kind: error.kind, detail: error.message },
      };
    }
    this.#running = undefined;
    this.#update(entry, { ...outcome, finishedAt: new Date().toISOString() });
    entry.done.resolve(entry.job);
    for (const [id, old] of this.#entries) {
      if (this.#entries.size <= keptJobs) break;
      if (isFinal(old.job)) this.#entries.delete(id);
    }
  }

  #update(entry: Entry, change: Partial<Job>): void {
    entry.job = { ...entry.job, ...change };
    this.#tell(entry, { event: "state", data: entry.job });
  }

  #tell(entry: Entry, event: JobEvent): void {
    for (const listener of entry.listeners) listener(event);
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      throw new TuckerdError("not-found", `there is no compression job "${id}"; the last ${keptJobs} are kept`);
    }
    return entry;
  }
}

function isFinal(job: Job): boolean {
  return job.state === "succeeded" || job.state === "failed" || job.state === "cancelled";
}
