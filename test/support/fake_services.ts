/**
 * Services without a model: what the routes reach, held in memory, with every failure at hand. A test steers jobs itself, so
 * nothing here waits for time to pass.
 *
 * @module
 */
import type { CompressionReport } from "../../src/compress/artifact.ts";
import { type ErrorKind, TuckerdError } from "../../src/errors.ts";
import type {
  Answer,
  CompressionPreview,
  CompressionRequest,
  CompressionSpectrum,
  GenerationChoice,
  GenerationInfo,
  Job,
  JobEvent,
  Metric,
  ModelInfo,
  Question,
  Readiness,
  Services,
} from "../../src/serve/services.ts";
import { compressedParameters, fakeReport, LAYERS, relativeError, SHAPE } from "./fake_model.ts";

const CREATED = "2026-01-31T12:00:00.000Z";

/** Services in memory. Public fields are the test's levers. */
export class FakeServices implements Services {
  readonly version = "0.0.0-test";
  readonly startedAt = new Date(CREATED);
  state: Readiness = { state: "ready", progress: 1 };
  /** Thrown by the next calls of the services, where set. */
  failure: Error | undefined;
  /** Every question asked, with its choice of generation. */
  readonly asked: { question: Question; choice: GenerationChoice }[] = [];
  /** Every compression request that was started. */
  readonly started: CompressionRequest[] = [];
  /** Signals of the event streams that were opened. */
  readonly streams: AbortSignal[] = [];
  readonly jobs = new Map<string, Job>();
  readonly reports = new Map<number, CompressionReport>([[0, fakeReport(0, [64, 16, 4])], [
    1,
    fakeReport(1, [48, 12, 4]),
  ]]);
  active = 1;
  modelId = "default";
  readonly #watchers = new Map<string, Set<(event: JobEvent) => void>>();

  readiness(): Readiness {
    return this.state;
  }

  model(): ModelInfo {
    return { id: this.modelId, architecture: "bert", task: "question-answering", maxInputTokens: 512 };
  }

  metrics(): readonly Metric[] {
    return [{
      name: "queue_length",
      help: "Requests that wait.",
      type: "gauge",
      samples: [{ labels: { model: 'a"b' }, value: 2 }],
    }];
  }

  readonly questionAnswering = {
    answer: (
      question: Question,
      choice: GenerationChoice,
    ): Promise<{ answers: readonly Answer[]; generation: number }> => {
      this.asked.push({ question, choice });
      if (this.failure) return Promise.reject(this.failure);
      const generation = choice.generation ?? this.active;
      this.#held(generation);
      const words = [...question.context.matchAll(/\S+/g)].slice(0, question.parameters?.top_k ?? 1);
      const answers = words.map((word, i) => ({
        answer: word[0],
        score: 0.9 / (i + 1),
        start: word.index,
        end: word.index + word[0].length,
      }));
      return Promise.resolve({ answers, generation });
    },
  };

  readonly compression = {
    report: (generation?: number): CompressionReport => this.#held(generation ?? this.active),
    start: (request: CompressionRequest): Promise<Job> => {
      if (this.failure) return Promise.reject(this.failure);
      const busy = [...this.jobs.values()].find((job) => job.state === "queued" || job.state === "running");
      if (busy !== undefined) {
        return Promise.reject(new TuckerdError("conflict", `Job ${busy.id} is under way; wait for it or cancel it`));
      }
      const [d] = SHAPE;
      if (request.ranks !== undefined && request.ranks[0] > d) {
        return Promise.reject(new TuckerdError("invalid", `ranks[0] must be at most ${d}, got ${request.ranks[0]}`));
      }
      this.started.push(request);
      const id = String(this.jobs.size + 1);
      const job: Job = {
        id,
        state: "running",
        request,
        progress: 0,
        layers: { done: 0, total: LAYERS },
        createdAt: CREATED,
      };
      this.jobs.set(id, job);
      return Promise.resolve(job);
    },
    job: (id: string): Job => {
      const job = this.jobs.get(id);
      if (job === undefined) throw new TuckerdError("not-found", `There is no job ${JSON.stringify(id)}`);
      return job;
    },
    finished: async (id: string): Promise<Job> => {
      for await (const _ of this.compression.events(id, new AbortController().signal));
      return this.compression.job(id);
    },
    cancel: (id: string): Promise<Job> => {
      const job = this.compression.job(id);
      if (job.state === "running") {
        this.#change({
          ...job,
          state: "cancelled",
          finishedAt: CREATED,
          error: { kind: "cancelled", detail: `Job ${id} was cancelled` },
        });
      }
      return Promise.resolve(this.compression.job(id));
    },
    events: (id: string, signal: AbortSignal): AsyncIterable<JobEvent> => {
      this.streams.push(signal);
      return this.#events(id, signal);
    },
    preview: (request: CompressionRequest): Promise<CompressionPreview> => {
      if (this.failure) return Promise.reject(this.failure);
      const layers = fakeReport(0, [64, 16, 4]).layers.map((layer) => {
        const override = request.overrides?.[String(layer.layer)];
        const ranks = override?.skip ? null : override?.ranks ?? request.ranks ?? [64, 16, 4] as const;
        const compressed = ranks === null ? layer.parameters : compressedParameters(ranks);
        return {
          layer: layer.layer,
          name: layer.name,
          mode: ranks === null ? "none" as const : "4d-tucker" as const,
          ranks,
          parameters: layer.parameters,
          compressedParameters: compressed,
          compressionRatio: layer.parameters / compressed,
          relativeError: ranks === null ? 0 : relativeError(ranks, layer.layer),
        };
      });
      const before = layers.reduce((sum, layer) => sum + layer.parameters, 0);
      const after = layers.reduce((sum, layer) => sum + layer.compressedParameters, 0);
      return Promise.resolve({
        totals: { attentionParameters: before, compressedParameters: after, compressionRatio: before / after },
        layers,
      });
    },
    spectrum: (): Promise<CompressionSpectrum> => {
      if (this.failure) return Promise.reject(this.failure);
      const values = (size: number, fall: number): number[] =>
        Array.from({ length: size }, (_, i) => 10 * Math.exp(-fall * i / size));
      return Promise.resolve({
        layers: fakeReport(0, [64, 16, 4]).layers.map(({ layer, name }) => ({
          layer,
          name,
          shape: SHAPE,
          singularValues: { hidden: values(192, 5 - layer), head: values(32, 3), stack: values(4, 1 + layer / 2) },
        })),
      });
    },
    generations: (): readonly GenerationInfo[] =>
      this.state.state !== "ready" ? [] : [...this.reports.values()].map((report) => ({
        generation: report.generation,
        active: report.generation === this.active,
        createdAt: CREATED,
        mode: report.mode,
        compressionRatio: report.totals.compressionRatio,
        meanRelativeError: report.layers.reduce((sum, layer) => sum + layer.relativeError, 0) / report.layers.length,
      })),
    activate: (generation: number): Promise<GenerationInfo> => {
      if (this.failure) return Promise.reject(this.failure);
      try {
        this.#held(generation);
      } catch (error) {
        return Promise.reject(error);
      }
      this.active = generation;
      return Promise.resolve(this.compression.generations().find((one) => one.active)!);
    },
  };

  /** Moves a job on by one layer. */
  finishLayer(id: string): void {
    const job = this.compression.job(id);
    const layer = job.layers.done;
    const ranks = job.request.ranks ?? [64, 16, 4] as const;
    const name = `bert.encoder.layer.${layer}.attention`;
    this.#send(id, { event: "layer", data: { layer, name, relativeError: relativeError(ranks, layer) } });
    this.#change({ ...job, progress: (layer + 1) / LAYERS, layers: { done: layer + 1, total: LAYERS } });
  }

  /** Ends a job well: a new generation serves. */
  succeed(id: string): void {
    const job = this.compression.job(id);
    const report = fakeReport(Math.max(...this.reports.keys()) + 1, job.request.ranks ?? [64, 16, 4]);
    this.reports.set(report.generation, report);
    this.active = report.generation;
    this.#change({
      ...job,
      state: "succeeded",
      progress: 1,
      layers: { done: LAYERS, total: LAYERS },
      finishedAt: CREATED,
      generation: report.generation,
      report,
    });
  }

  /** Ends a job badly. */
  fail(id: string, error: { kind: ErrorKind; detail: string }): void {
    this.#change({ ...this.compression.job(id), state: "failed", finishedAt: CREATED, error });
  }

  #held(generation: number): CompressionReport {
    const report = this.reports.get(generation);
    if (report === undefined) throw new TuckerdError("not-found", `Generation ${generation} is not held`);
    return report;
  }

  #change(job: Job): void {
    this.jobs.set(job.id, job);
    this.#send(job.id, { event: "state", data: job });
  }

  #send(id: string, event: JobEvent): void {
    for (const watcher of this.#watchers.get(id) ?? []) watcher(event);
  }

  async *#events(id: string, signal: AbortSignal): AsyncGenerator<JobEvent> {
    const first = this.compression.job(id);
    const queue: JobEvent[] = [{ event: "state", data: first }];
    let wake = (): void => {};
    const watcher = (event: JobEvent): void => {
      queue.push(event);
      wake();
    };
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(watcher));
    const stop = (): void => wake();
    signal.addEventListener("abort", stop);
    try {
      while (!signal.aborted) {
        const event = queue.shift();
        if (event === undefined) {
          await new Promise<void>((resolve) => wake = resolve);
          continue;
        }
        yield event;
        if (event.event === "state" && "state" in event.data && event.data.state !== "running") return;
      }
    } finally {
      watchers.delete(watcher);
      signal.removeEventListener("abort", stop);
    }
  }
}
