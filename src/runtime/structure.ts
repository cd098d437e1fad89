/**
 * One loaded graph structure: a worker with its session, and the generations whose factors it holds. If the worker dies it
 * is built again from the same graph and factors.
 *
 * @module
 */
import type { FactorTensor, GraphSource } from "../compress/artifact.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import type { LoadedSession, LoadRequest } from "./protocol.ts";
import type { SessionWorker } from "./session_worker.ts";
import type { HostTensor } from "./types.ts";

/** Factor tensors by graph input name. */
export type FactorFeeds = Readonly<Record<string, FactorTensor>>;

/** What a structure is built from. */
export interface StructureOptions {
  readonly graph: GraphSource;
  readonly provider: LoadRequest["provider"];
  /** Whether the CPU may take over, said in the log, where the session can't be built for `provider`. */
  readonly mayFallBack: boolean;
  readonly threads: number;
  readonly startWorker: () => SessionWorker;
}

interface LiveSession {
  readonly worker: SessionWorker;
  readonly session: LoadedSession;
}

/** Workers that may die in a row before the structure gives up. */
const deathLimit = 3;

/**
 * A session in a worker, shared by generations. Graph and factors stay referenced for a rebuild after a crash, so a large
 * graph is better given by path than by bytes.
 */
export class Structure {
  readonly #options: StructureOptions;
  readonly #feeds = new Map<number, FactorFeeds>();
  #live: Promise<LiveSession>;
  /** Workers that died one after the other without an answer between them. */
  #deathsInARow = 0;
  #closing = false;

  constructor(options: StructureOptions) {
    this.#options = options;
    this.#live = this.#buildOrFallBack();
  }

  /** What the session says about itself; rejects if it could not be built. */
  async session(): Promise<LoadedSession> {
    return (await this.#live).session;
  }

  /** Sends the factors of a generation; the session stays as it is. */
  async install(generation: number, feeds: FactorFeeds): Promise<void> {
    const { worker } = await this.#live;
    await worker.call("install", { generation, feeds });
    this.#feeds.set(generation, feeds);
  }

  /** Runs a generation that was installed. */
  async run(generation: number, inputs: Readonly<Record<string, HostTensor>>): Promise<Record<string, HostTensor>> {
    const { worker } = await this.#live;
    const outputs = await worker.call("run", { generation, inputs });
    this.#deathsInARow = 0;
    return outputs;
  }

  /** Forgets the factors of a generation. */
  async forget(generation: number): Promise<void> {
    this.#feeds.delete(generation);
    const { worker } = await this.#live;
    await worker.call("forget", { generation });
  }

  /** Frees the session and ends the worker. */
  async close(): Promise<void> {
    this.#closing = true;
    const { worker } = await this.#live;
    await worker.close();
  }

  async #buildOrFallBack(): Promise<LiveSession> {
    const { provider, mayFallBack } = this.#options;
    try {
      return await this.#build(provider);
    } catch (error) {
      if (!mayFallBack || provider === "cpu") throw error;
      log(0, `tuckerd: inference runs on the CPU instead of ${provider}: ${TuckerdError.from(error).message}`);
      return await this.#build("cpu");
    }
  }

  async #build(provider: LoadRequest["provider"]): Promise<LiveSession> {
    const { graph, threads, startWorker } = this.#options;
    const worker = startWorker();
    try {
      const session = await worker.call("load", { graph, provider, threads });
      for (const [generation, feeds] of this.#feeds) await worker.call("install", { generation, feeds });
      worker.died.then((reason) => this.#rebuild(reason));
      return { worker, session };
    } catch (error) {
      await worker.close().catch(() => {}); // the reason why it could not be built is the one to tell
      throw error;
    }
  }

  #rebuild(reason: TuckerdError): void {
    if (this.#closing) return;
    this.#deathsInARow++;
    if (this.#deathsInARow < deathLimit) {
      log(0, `tuckerd: ${reason.message}; starting it again`);
      this.#live = this.#buildOrFallBack();
    } else {
      const message = `${reason.message}; it stopped ${deathLimit} times without an answer and is not started again`;
      this.#live = Promise.reject(new TuckerdError("failed", message, { cause: reason }));
    }
    this.#live.catch((error) => log(0, `tuckerd: inference is down: ${TuckerdError.from(error).message}`));
  }
}
