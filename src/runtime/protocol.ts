/**
 * The messages between an inference engine and its workers. Every request has an id and gets one reply with that id.
 *
 * @module
 */
import type { FactorTensor, GraphSource } from "../compress/artifact.ts";
import type { ErrorKind } from "../errors.ts";
import type { HostTensor, TensorInfo } from "./types.ts";

/** ONNX Runtime's execution providers that tuckerd uses. */
export type Provider = "cpu" | "webgpu";

/** What a worker can be asked, with the type of each answer. */
export interface WorkerCalls {
  /** Builds the worker's one session; `factorNames` are the graph inputs that generations feed. */
  load: { request: LoadRequest; answer: LoadedSession };
  /** Keeps the factor tensors of a generation. */
  install: {
    request: { readonly generation: number; readonly feeds: Readonly<Record<string, FactorTensor>> };
    answer: undefined;
  };
  /** Forgets the factor tensors of a generation. */
  forget: { request: { readonly generation: number }; answer: undefined };
  /** One run of a generation. */
  run: {
    request: { readonly generation: number; readonly inputs: Readonly<Record<string, HostTensor>> };
    answer: Record<string, HostTensor>;
  };
  /** Frees the session; the worker may be terminated afterwards. */
  close: { request: Record<never, never>; answer: undefined };
}

/** Names of the calls. */
export type CallName = keyof WorkerCalls;

/** How to build a session. */
export interface LoadRequest {
  readonly graph: GraphSource;
  readonly provider: Provider;
  readonly threads: number;
}

/** What a built session says about itself. */
export interface LoadedSession {
  readonly provider: Provider;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

/** A request as posted. */
export type WorkerRequest = {
  [Name in CallName]: { readonly id: number; readonly call: Name; readonly request: WorkerCalls[Name]["request"] };
}[CallName];

/** A reply as posted. */
export type WorkerReply =
  | { readonly id: number; readonly answer: WorkerCalls[CallName]["answer"] }
  | { readonly id: number; readonly error: WorkerError };

/** A `TuckerdError` as it crosses the worker's boundary. */
export interface WorkerError {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}
