/**
 * Bounds the runs that wait for inference, so that a flood is refused at once instead of answered too late.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";

/** Weight of the newest run in the mean duration. */
const newestWeight = 0.1;

/** Counts runs from acceptance to answer. */
export class RunQueue {
  readonly #limit: number;
  #pending = 0;
  /** Mean time between two answers under load, in seconds: what one place in the queue costs. */
  #secondsPerRun = 0.1;
  #lastAnswer = 0;

  /** @param limit Runs that may be pending at once. */
  constructor(limit: number) {
    if (!(Number.isInteger(limit) && limit >= 1)) {
      throw new RangeError(`The limit of pending runs must be an integer of at least 1, got ${limit}`);
    }
    this.#limit = limit;
  }

  /** Runs accepted and not answered yet. */
  get pending(): number {
    return this.#pending;
  }

  /** Starts a run, or rejects with `overloaded` and `retryAfterSeconds` if as many as allowed are pending. */
  async add<Result>(run: () => Promise<Result>): Promise<Result> {
    if (this.#pending >= this.#limit) {
      const retryAfterSeconds = Math.ceil(this.#pending * this.#secondsPerRun);
      throw new TuckerdError(
        "overloaded",
        `${this.#pending} inference runs are pending, the most that may wait; try again in ${retryAfterSeconds} s`,
        { fields: { retryAfterSeconds, pending: this.#pending } },
      );
    }
    this.#pending++;
    const accepted = performance.now();
    try {
      return await run();
    } finally {
      this.#pending--;
      this.#measure(accepted);
    }
  }

  #measure(accepted: number): void {
    const now = performance.now();
    const seconds = (now - Math.max(accepted, this.#lastAnswer)) / 1000;
    this.#secondsPerRun += newestWeight * (seconds - this.#secondsPerRun);
    this.#lastAnswer = now;
  }
}
