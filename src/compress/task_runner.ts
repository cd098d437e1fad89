/**
 * Results of tasks: from the store where they are there, else from the child process by way of the store.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { Decomposer } from "./decomposer.ts";
import type { FactorFile } from "./factor_file.ts";
import type { Device, KeptTask, Task } from "./layer_task.ts";
import type { FactorStore } from "./store.ts";

/** What tasks run with. */
export interface TaskRunnerOptions {
  readonly device: Device;
  readonly store: FactorStore;
  readonly decomposer: Decomposer;
}

/** How results are read and told. */
export interface TaskRun<T extends Task, R> {
  readonly decode: (task: T, file: FactorFile, where: string) => R;
  readonly onResult?: ((task: T, result: R) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Runs tasks of one model. */
export class TaskRunner {
  readonly #options: TaskRunnerOptions;
  readonly #keyOf: (task: KeptTask) => string;

  /** @param keyOf names a task's result by all that it depends on */
  constructor(keyOf: (task: KeptTask) => string, options: TaskRunnerOptions) {
    this.#keyOf = keyOf;
    this.#options = options;
  }

  /**
   * The result of each task, in their order; they are told in the order in which they come.
   *
   * @throws TuckerdError what the child reported; `failed` if it died; `cancelled`
   */
  async run<T extends Task, R>(
    tasks: readonly T[],
    { decode, onResult, signal }: TaskRun<T, R>,
  ): Promise<readonly R[]> {
    const { store, decomposer, device } = this.#options;
    const keys = tasks.map(this.#keyOf);
    const results = new Map<number, R>();
    const read = async (index: number): Promise<boolean> => {
      const file = await store.read(keys[index]!);
      if (file === undefined) return false;
      const result = decode(tasks[index]!, file, store.path(keys[index]!));
      results.set(index, result);
      onResult?.(tasks[index]!, result);
      return true;
    };
    const missing: number[] = [];
    for (const index of tasks.keys()) if (!await read(index)) missing.push(index);
    if (missing.length > 0) {
      const reads: Promise<boolean>[] = [];
      await decomposer.run({
        device,
        tasks: missing.map((index) => tasks[index]!),
        files: missing.map((index) => store.path(keys[index]!)),
        full: missing.map((index) => this.#fullFile(tasks[index]!)),
      }, {
        ...(signal === undefined ? {} : { signal }),
        onTask: (done) => reads.push(read(missing[done]!)),
      });
      await Promise.all(reads);
    }
    return tasks.map((task, index) => {
      const result = results.get(index);
      if (result !== undefined) return result;
      throw new TuckerdError("failed", `the result for layer ${task.layer} was not in the store after it was written`);
    });
  }

  /**
   * The result of a task that has run, read again.
   *
   * @throws TuckerdError `failed` if its file is gone
   */
  async read<T extends Task, R>(task: T, decode: TaskRun<T, R>["decode"]): Promise<R> {
    const { store } = this.#options;
    const path = store.path(this.#keyOf(task));
    const file = await store.read(this.#keyOf(task));
    if (file === undefined) {
      throw new TuckerdError(
        "failed",
        `${path}, the result for layer ${task.layer}, is gone from the store; ask again`,
      );
    }
    return decode(task, file, path);
  }

  /** Where the full HOSVD is kept that a task's factors are sliced from. */
  #fullFile(task: Task): string | null {
    if (task.task !== "layer" || task.algorithm !== "hosvd") return null;
    const { layer, layout, balance } = task;
    return this.#options.store.path(this.#keyOf({ task: "hosvd", layer, layout, balance }));
  }
}
