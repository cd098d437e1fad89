/**
 * What the HTTP routes need of the program, as interfaces: `createApp(services)` takes them, and a test passes others.
 *
 * @module
 */
import type { CompressionReport } from "../compress/artifact.ts";
import type { Layout, Mode, Ranks } from "../tucker/types.ts";

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

/** Parameters of the Hugging Face question-answering contract, by its names. */
export interface QuestionAnsweringParameters {
  readonly top_k?: number;
  readonly doc_stride?: number;
  readonly max_answer_len?: number;
  readonly max_seq_len?: number;
  readonly max_question_len?: number;
  readonly handle_impossible_answer?: boolean;
  readonly align_to_words?: boolean;
}

/** One answer: `context` sliced from `start` to `end`, counted in Unicode code points or UTF-16 units as asked. */
export interface Answer {
  readonly answer: string;
  readonly score: number;
  readonly start: number;
  readonly end: number;
}

/** A question about a context. */
export interface Question {
  readonly question: string;
  readonly context: string;
  readonly parameters?: QuestionAnsweringParameters;
  /** Unit of `start` and `end`; Hugging Face's own is code points. */
  readonly offsets?: "code_points" | "utf16";
}

/** Extractive question answering on a generation. */
export interface QuestionAnsweringService {
  /** Answers best first, and the generation that gave them. Throws `TuckerdError` (invalid, unavailable, overloaded, not-found). */
  answer(question: Question, choice: GenerationChoice): Promise<{ answers: readonly Answer[]; generation: number }>;
}

/** What `POST /v1/compression` may ask; exactly one of ranks, energy and compressionRatio, or none for mode `none`. */
export interface CompressionRequest {
  readonly ranks?: Ranks;
  readonly energy?: number;
  readonly compressionRatio?: number;
  readonly mode?: Mode;
  readonly layout?: Layout;
  readonly balance?: boolean;
  /** `all`, or a list such as `0,2-5`. */
  readonly layers?: string;
  readonly laser?: { readonly matrices: readonly string[]; readonly rate: number };
  readonly overrides?: Readonly<Record<string, { readonly ranks?: Ranks; readonly skip?: boolean }>>;
}

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
  readonly error?: { readonly kind: string; readonly detail: string };
}

/** One event of a job's stream: `state` (a whole job), or `layer` (one layer done). */
export interface JobEvent {
  readonly event: "state" | "layer";
  readonly data: Job | { readonly layer: number; readonly name: string; readonly relativeError: number };
}

/** What given ranks would cost and save. */
export interface CompressionPreview {
  readonly totals: {
    readonly attentionParameters: number;
    readonly compressedParameters: number;
    readonly compressionRatio: number;
  };
  readonly layers: readonly {
    readonly layer: number;
    readonly name: string;
    readonly ranks: Ranks | null;
    readonly parameters: number;
    readonly compressedParameters: number;
    readonly compressionRatio: number;
    /** Of the truncated HOSVD: an upper bound that HOOI comes in under. */
    readonly relativeError: number;
  }[];
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
  /** The report of the generation that is serving. */
  report(): CompressionReport;
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
