/**
 * The runtime's outside: named tensors in, named tensors out, on a generation.
 *
 * @module
 */
import type { CompressedModel } from "../compress/artifact.ts";

/** Element types that the models of the field take and give. */
export type TensorType = "float32" | "float16" | "int64" | "int32" | "bool";

/** A tensor on the host, row-major; float16 as bit patterns in a Uint16Array. */
export interface HostTensor {
  readonly type: TensorType;
  readonly shape: readonly number[];
  readonly data: Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;
}

/** Name, type and dimensions of one model input or output; symbolic dimensions by name. */
export interface TensorInfo {
  readonly name: string;
  readonly type: TensorType;
  readonly shape: readonly (number | string)[];
}

/** Runs models off the HTTP thread. Generations are numbered by the caller. */
export interface InferenceEngine extends AsyncDisposable {
  /** The execution provider that really runs, such as `cpu` or `webgpu`; known after the first install. */
  readonly provider: string;
  /** The model's own inputs (factor inputs left out) and outputs; known after the first install. */
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /**
   * Makes a generation runnable. Where its structure is loaded already, only factors travel and nothing stalls; otherwise a
   * session is built beside the running ones, which go on serving. Rejects (and changes nothing) if the graph doesn't load.
   */
  install(generation: number, model: CompressedModel): Promise<void>;
  /** Runs one generation. Requests of one generation may be run together where shapes allow it. */
  run(generation: number, inputs: Readonly<Record<string, HostTensor>>): Promise<Record<string, HostTensor>>;
  /** Forgets a generation once its runs in flight are done; frees its session with its last generation. */
  release(generation: number): Promise<void>;
}
