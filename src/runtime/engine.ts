/**
 * Inference off the HTTP thread. A generation is a graph structure (a session in a worker of its own) plus its factor
 * tensors; generations of one structure share the session, so installing one more takes milliseconds. A new structure is
 * built in a second worker while the others go on serving.
 *
 * @module
 */
import type { CompressedModel } from "../compress/artifact.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { checkInputs } from "./check_inputs.ts";
import type { LoadedSession, Provider } from "./protocol.ts";
import { type ProviderChoice, resolveProvider } from "./provider.ts";
import { RunQueue } from "./run_queue.ts";
import { SessionWorker, type StartWorker } from "./session_worker.ts";
import { Structure } from "./structure.ts";
import { availableThreads } from "../machine.ts";
import type { HostTensor, InferenceEngine, TensorInfo } from "./types.ts";

/** Settings of an engine. */
export interface EngineOptions {
  /** `auto`: WebGPU on a real GPU, otherwise CPU. */
  readonly provider: ProviderChoice;
  /** Threads of one session; by default the cores that the control group allows. */
  readonly threads?: number;
  /** Runs that may wait or be under way at once before `overloaded`. */
  readonly maxPendingRuns?: number;
  /** For tests: starts the workers. */
  readonly startWorker?: StartWorker;
}

/** An engine without generations yet. */
export async function createEngine(options: EngineOptions): Promise<InferenceEngine> {
  return new WorkerEngine(options, await resolveProvider(options.provider));
}

/** A structure and the generations that hold it, those being installed included. */
interface SharedStructure {
  readonly structure: Structure;
  readonly holders: Set<number>;
}

interface HeldGeneration {
  readonly key: string;
  readonly structure: Structure;
  /** The model's own inputs: those of the graph without the factors. */
  readonly inputs: readonly TensorInfo[];
  readonly runs: Set<Promise<unknown>>;
}

/** What the model itself takes and gives. */
interface Signature {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

class WorkerEngine implements InferenceEngine {
  readonly #threads: number;
  readonly #startWorker: StartWorker | undefined;
  readonly #queue: RunQueue;
  readonly #structures = new Map<string, SharedStructure>();
  readonly #generations = new Map<number, HeldGeneration>();
  readonly #mayFallBack: boolean;
  #provider: Provider;
  #signature: Signature | undefined;
  /** Started with the engine, so that the first session finds ONNX Runtime loaded. */
  #spare: SessionWorker | undefined;
  #closed = false;

  constructor(options: EngineOptions, provider: Provider) {
    this.#threads = options.threads ?? availableThreads();
    this.#startWorker = options.startWorker;
    this.#queue = new RunQueue(options.maxPendingRuns ?? 256);
    this.#provider = provider;
    this.#mayFallBack = options.provider === "auto";
    this.#spare = new SessionWorker(this.#startWorker);
  }

  get provider(): string {
    return this.#provider;
  }

  get inputs(): readonly TensorInfo[] {
    return this.#known().inputs;
  }

  get outputs(): readonly TensorInfo[] {
    return this.#known().outputs;
  }

  async install(generation: number, model: CompressedModel): Promise<void> {
    if (this.#closed) throw closedError();
    const known = this.#structures.get(model.structure);
    const shared = known ?? { structure: this.#start(model), holders: new Set<number>() };
    if (this.#generations.has(generation) || shared.holders.has(generation)) {
      throw new RangeError(`Generation ${generation} is installed already; a generation can't change`);
    }
    this.#structures.set(model.structure, shared);
    shared.holders.add(generation);
    try {
      const session = await shared.structure.session();
      this.#provider = session.provider;
      checkFeeds(session, model);
      await shared.structure.install(generation, model.feeds);
      const inputs = session.inputs.filter(({ name }) => !Object.hasOwn(model.feeds, name));
      this.#signature ??= { inputs, outputs: session.outputs };
      this.#generations.set(generation, { key: model.structure, structure: shared.structure, inputs, runs: new Set() });
    } catch (error) {
      await this.#leave(model.structure, generation);
      throw error;
    }
  }

  run(generation: number, inputs: Readonly<Record<string, HostTensor>>): Promise<Record<string, HostTensor>> {
    const held = this.#generations.get(generation);
    if (held === undefined) {
      return Promise.reject(
        this.#closed ? closedError() : new TuckerdError("not-found", `Generation ${generation} is not installed`, {
          fields: { generation, installed: [...this.#generations.keys()] },
        }),
      );
    }
    const result = this.#queue.add(() => {
      checkInputs(held.inputs, inputs);
      return held.structure.run(generation, inputs);
    });
    held.runs.add(result);
    const done = (): void => void held.runs.delete(result);
    result.then(done, done);
    return result;
  }

  async release(generation: number): Promise<void> {
    const held = this.#generations.get(generation);
    if (held === undefined) return;
    this.#generations.delete(generation);
    await Promise.allSettled(held.runs);
    await held.structure.forget(generation);
    await this.#leave(held.key, generation);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#generations.clear();
    const structures = [...this.#structures.values()];
    this.#structures.clear();
    await Promise.allSettled([this.#spare?.close(), ...structures.map(({ structure }) => structure.close())]);
  }

  #known(): Signature {
    if (this.#signature === undefined) throw new TuckerdError("unavailable", "No model is installed yet");
    return this.#signature;
  }

  #start({ graph }: CompressedModel): Structure {
    return new Structure({
      graph,
      provider: this.#provider,
      mayFallBack: this.#mayFallBack,
      threads: this.#threads,
      startWorker: () => {
        const worker = this.#spare ?? new SessionWorker(this.#startWorker);
        this.#spare = undefined;
        return worker;
      },
    });
  }

  /** Takes a generation off its structure, and closes the structure with its last one. */
  async #leave(key: string, generation: number): Promise<void> {
    const shared = this.#structures.get(key);
    shared?.holders.delete(generation);
    if (shared === undefined || shared.holders.size > 0) return;
    this.#structures.delete(key);
    try {
      await shared.structure.close();
    } catch (error) {
      log(1, `runtime: closing a session: ${TuckerdError.from(error).message}`); // one that was never built, or crashed
    }
  }
}

/** Throws `bad-model` unless the graph takes every factor under its name. */
function checkFeeds(session: LoadedSession, { feeds, structure }: CompressedModel): void {
  const names = new Set(session.inputs.map(({ name }) => name));
  const unknown = Object.keys(feeds).filter((name) => !names.has(name));
  if (unknown.length > 0) {
    throw new TuckerdError(
      "bad-model",
      `The graph of structure "${structure}" has no inputs for the factors ${unknown.join(", ")}`,
      { fields: { inputs: [...names] } },
    );
  }
}

function closedError(): TuckerdError {
  return new TuckerdError("unavailable", "The inference engine was closed");
}
