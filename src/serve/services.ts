/**
 * What the HTTP routes need of the program, as interfaces: `createApp(services)` takes them, and a test passes others.
 *
 * @module
 */
import type { CompressionReport } from "../compress/artifact.ts";
import type { ErrorKind } from "../errors.ts";
import type { Answer, Question } from "../qa/types.ts";
import type { CompressionRequest } from "../compress/options.ts";
import type { CompressionPreview } from "../compress/preview.ts";
import type { Mode } from "../tucker/types.ts";

export type { Answer, OffsetUnit, Question, QuestionAnsweringParameters } from "../qa/types.ts";

/** Life of the server: the port is open from the first state on. */
export type ServerState = "starting" | "loading" | "compressing" | "ready" | "failed" | "stopping";

/** What `/health` tells. */
export interface Readiness {
  readonly state: ServerState;
  /** 0 to 1. */
  readonly progress: number;
  /** Why, where the state is `failed`. */
  readonly reason?: string;
}

/** Which generation a request wants: a held one, or the one that serves now. */
export interface GenerationChoice {
  readonly generation?: number;
}

/** Extractive question answering on a generation. */
export interface QuestionAnsweringService {
  /** Answers best first, and the generation that gave them. Throws `TuckerdError` (invalid, unavailable, overloaded, not-found). */
  answer(question: Question, choice: GenerationChoice): Promise<{ answers: readonly Answer[]; generation: number }>;
}

export type { CompressionPreview, CompressionRequest };

/** States of a compression job; the last three are final. */
export type JobState = "queued" | "running" | "succeeded" | "failed" | "cancelled";

/** A compression job as the routes show it. */
export interface Job {
  readonly id: string;
  readonly state: JobState;
  readonly request: CompressionRequest;
  /** 0 to 1. */
  readonly progress: number;
  /** Layers done, of all that the job decomposes. */
  readonly layers: { readonly done: number; readonly total: number };
  readonly createdAt: string;
  readonly finishedAt?: string;
  /** Where it succeeded: the generation that it made, and its report. */
  readonly generation?: number;
  readonly report?: CompressionReport;
  /** Where it failed or was cancelled: why. */
  readonly error?: { readonly kind: ErrorKind; readonly detail: string };
}

/** One event of a job's stream: `state` (a whole job), or `layer` (one layer done). */
export interface JobEvent {
  readonly event: "state" | "layer";
  readonly data: Job | { readonly layer: number; readonly name: string; readonly relativeError: number };
}

/** Singular values of each mode of each layer's tensor, descending. */
export interface CompressionSpectrum {
  readonly layers: readonly {
    readonly layer: number;
    readonly name: string;
    readonly shape: readonly [number, number, number, number];
    readonly singularValues: {
      readonly hidden: readonly number[];
      readonly head: readonly number[];
      readonly stack: readonly number[];
    };
  }[];
}

/** A generation as `GET /v1/generations` lists it. */
export interface GenerationInfo {
  readonly generation: number;
  readonly active: boolean;
  readonly createdAt: string;
  readonly mode: Mode;
  readonly compressionRatio: number;
  /** Mean of the layers' relative errors. */
  readonly meanRelativeError: number;
}

/** Rank control. */
export interface CompressionService {
  /** The report of the generation that is serving, or of a held one; throws `unavailable` or `not-found`. */
  report(generation?: number): CompressionReport;
  /** Starts a re-run; throws `conflict` while another is under way, `invalid` where the request can't be met. */
  start(request: CompressionRequest): Promise<Job>;
  job(id: string): Job;
  /** Resolves once the job is final. */
  finished(id: string): Promise<Job>;
  /** Asks a job to stop; resolves with its final state. */
  cancel(id: string): Promise<Job>;
  /** Present state first, then every change until the job is final. */
  events(id: string, signal: AbortSignal): AsyncIterable<JobEvent>;
  preview(request: CompressionRequest): Promise<CompressionPreview>;
  spectrum(): Promise<CompressionSpectrum>;
  /** The generations held, oldest first; none before the first one serves. */
  generations(): readonly GenerationInfo[];
  /** Makes a held generation the serving one. */
  activate(generation: number): Promise<GenerationInfo>;
}

/** What `/info` tells about the model. */
export interface ModelInfo {
  readonly id: string;
  readonly architecture: string;
  readonly task: "question-answering" | "text-generation";
  /** Longest input in tokens. */
  readonly maxInputTokens: number;
}

/** Numbers for `/metrics`, named without prefix. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly samples: readonly { readonly labels?: Readonly<Record<string, string>>; readonly value: number }[];
}

/** Everything that the routes reach. */
export interface Services {
  readonly version: string;
  readonly startedAt: Date;
  readiness(): Readiness;
  /** Throws `unavailable` before the model is loaded. */
  model(): ModelInfo;
  readonly questionAnswering: QuestionAnsweringService;
  readonly compression: CompressionService;
  metrics(): readonly Metric[];
}
