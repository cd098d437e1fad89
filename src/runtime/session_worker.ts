/**
 * The engine's end of one inference worker: calls as promises, and one clear error for all of them if the worker dies.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { CallName, WorkerCalls, WorkerReply, WorkerRequest } from "./protocol.ts";

/** Starts the worker that a `SessionWorker` speaks to; a test may start another module. */
export type StartWorker = () => Worker;

/** Starts `worker.ts`. */
export function startInferenceWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "tuckerd-inference" });
}

interface PendingCall {
  readonly resolve: (answer: never) => void;
  readonly reject: (error: TuckerdError) => void;
}

/** One worker and the calls that it has not answered yet. */
export class SessionWorker {
  /** Resolves, with the reason, if the worker dies of an error; never rejects. */
  readonly died: Promise<TuckerdError>;
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;
  #end: TuckerdError | undefined;

  constructor(start: StartWorker = startInferenceWorker) {
    const { promise, resolve } = Promise.withResolvers<TuckerdError>();
    this.died = promise;
    this.#worker = start();
    this.#worker.onmessage = (event: MessageEvent<WorkerReply>) => this.#settle(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault(); // handled here; otherwise it would end the whole program
      const error = new TuckerdError("failed", `The inference worker stopped: ${event.message}`);
      this.#stop(error);
      resolve(error);
    };
  }

  /** Asks the worker; rejects with what the worker throws, or with the reason of its death. */
  call<Name extends CallName>(call: Name, request: WorkerCalls[Name]["request"]): Promise<WorkerCalls[Name]["answer"]> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, request } as WorkerRequest);
    });
  }

  /** Frees the session, then ends the worker: a worker terminated with an open session leaks the model. */
  async close(): Promise<void> {
    try {
      await this.call("close", {});
    } finally {
      this.#stop(new TuckerdError("unavailable", "The inference worker was closed"));
    }
  }

  #settle(reply: WorkerReply): void {
    const pending = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    if ("error" in reply) pending?.reject(TuckerdError.fromJSON(reply.error));
    else pending?.resolve(reply.answer as never); // the answer's type belongs to the call with this id
  }

  #stop(reason: TuckerdError): void {
    this.#end ??= reason;
    this.#worker.terminate();
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#pending.clear();
  }
}
