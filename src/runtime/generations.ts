/**
 * The generations that are held: which one serves, which can be asked for or activated again, and how long each lives.
 *
 * @module
 */
import type { CompressedModel, CompressionReport } from "../compress/artifact.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import type { HostTensor, InferenceEngine } from "./types.ts";

/** A generation as it is listed. */
export interface Generation {
  readonly number: number;
  readonly report: CompressionReport;
  readonly createdAt: Date;
}

/** Runs the generation that a request was pinned to. */
export type RunGeneration = (inputs: Readonly<Record<string, HostTensor>>) => Promise<Record<string, HostTensor>>;

interface HeldGeneration extends Generation {
  /** Requests that are using it. */
  pins: number;
  /** Evicted: no new requests; freed with its last pin. */
  evicted: boolean;
}

/** The last generations of a server, numbered from 1 as they were added. */
export class Generations {
  readonly #engine: InferenceEngine;
  readonly #keep: number;
  readonly #held = new Map<number, HeldGeneration>();
  #current: number | undefined;
  #lastNumber = 0;

  /** @param options.keep How many to hold, the serving one included; 8 by default. */
  constructor(engine: InferenceEngine, { keep = 8 }: { readonly keep?: number } = {}) {
    if (!(Number.isInteger(keep) && keep >= 1)) {
      throw new RangeError(`The number of generations to keep must be an integer of at least 1, got ${keep}`);
    }
    this.#engine = engine;
    this.#keep = keep;
  }

  /** Number of the serving generation; throws `unavailable` before the first one is active. */
  get current(): number {
    if (this.#current === undefined) throw new TuckerdError("unavailable", "No generation is serving yet");
    return this.#current;
  }

  /** The held generations, oldest first. */
  list(): readonly Generation[] {
    return [...this.#held.values()];
  }

  /** The report of a held generation, the serving one by default; throws as `resolve` does. */
  report(choice?: number): CompressionReport {
    return this.#get(this.resolve(choice)).report;
  }

  /**
   * Installs a model as the next generation and returns its number, which its report then carries beside
   * the provider that runs it. It doesn't serve until it is activated. A model that doesn't load leaves everything as it was (its number stays unused).
   */
  async add(model: CompressedModel): Promise<number> {
    const number = ++this.#lastNumber;
    await this.#engine.install(number, model);
    // The provider is what really loaded the graph, so it is known only now.
    const devices = { ...model.report.devices, inference: { provider: this.#engine.provider } };
    const report = { ...model.report, generation: number, devices };
    this.#held.set(number, { number, report, createdAt: new Date(), pins: 0, evicted: false });
    this.#evictBeyondLimit(number);
    return number;
  }

  /** Makes a held generation the serving one; throws `not-found` where it isn't held. */
  activate(number: number): void {
    this.#current = this.resolve(number);
    this.#evictBeyondLimit(number);
  }

  /** The generation that a request means: the one it names, or the serving one. Throws `not-found` or `unavailable`. */
  resolve(choice?: number): number {
    const number = choice ?? this.current;
    if (this.#held.has(number)) return number;
    const held = [...this.#held.keys()];
    throw new TuckerdError(
      "not-found",
      `Generation ${number} is not held; ${held.length === 0 ? "none is" : `held are ${held.join(", ")}`}`,
      { fields: { generation: number, held } },
    );
  }

  /**
   * Pins a generation while `action` uses it: one that is evicted meanwhile is freed only afterwards, so a request ends
   * on the generation that it began with.
   */
  async use<Result>(
    choice: number | undefined,
    action: (run: RunGeneration, generation: number) => Promise<Result>,
  ): Promise<Result> {
    const held = this.#get(this.resolve(choice));
    held.pins++;
    try {
      return await action((inputs) => this.#engine.run(held.number, inputs), held.number);
    } finally {
      held.pins--;
      this.#freeIfUnused(held);
    }
  }

  #get(number: number): HeldGeneration {
    return this.#held.get(number)!; // callers have resolved the number
  }

  /** Evicts the oldest generations beyond the limit, but neither the serving one nor `newest`. */
  #evictBeyondLimit(newest: number): void {
    for (const held of [...this.#held.values()]) {
      if (this.#held.size <= this.#keep) return;
      if (held.number === this.#current || held.number === newest) continue;
      this.#held.delete(held.number);
      held.evicted = true;
      this.#freeIfUnused(held);
    }
  }

  #freeIfUnused(held: HeldGeneration): void {
    if (!held.evicted || held.pins > 0) return;
    this.#engine.release(held.number).catch((error) =>
      log(0, `tuckerd: generation ${held.number} could not be freed: ${TuckerdError.from(error).message}`)
    );
  }
}
