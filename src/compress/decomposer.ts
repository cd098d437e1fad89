/**
 * The parent's side of the decomposition process. A WebGPU driver that panics takes its whole process with it, so
 * decomposing happens in a child; this class starts it, speaks with it in lines of JSON, and outlives it.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text_line_stream.js";
import { type ErrorKind, TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { type ChildCommand, ChildEvent } from "./layer_task.ts";

/** A command without its number, which the decomposer gives. */
export type DecomposerCommand = Omit<ChildCommand, "id">;

/** How long a child without work is kept: long enough for an engineer who turns ranks, short enough to give memory back. */
const defaultIdleSeconds = 60;

interface Child {
  readonly process: Deno.ChildProcess;
  readonly input: WritableStreamDefaultWriter<Uint8Array>;
}

interface Pending {
  readonly id: number;
  readonly child: Child;
  readonly onTask: (index: number) => void;
  readonly settle: (error?: TuckerdError) => void;
}

/** Runs decomposition commands in a child process, one at a time. */
export class Decomposer implements AsyncDisposable {
  readonly #graphPath: string;
  readonly #idleSeconds: number;
  #child: Child | undefined;
  #pending: Pending | undefined;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;
  #nextId = 1;

  /** @param graphPath the .onnx file whose attention is decomposed */
  constructor(graphPath: string, options: { readonly idleSeconds?: number } = {}) {
    this.#graphPath = graphPath;
    this.#idleSeconds = options.idleSeconds ?? defaultIdleSeconds;
  }

  /** Process number of the child, where one runs: for operators and tests that end it. */
  get processId(): number | undefined {
    return this.#child?.process.pid;
  }

  /** Starts the child early, so that its start-up overlaps with other work. */
  warm(): void {
    this.#child ??= this.#spawn();
  }

  /**
   * Runs one command.
   *
   * @throws TuckerdError what the child reported; `failed` if the child died; `cancelled` if `signal` was aborted (which
   * ends the child, since a running kernel can't be interrupted)
   */
  async run(
    command: DecomposerCommand,
    options: { readonly signal?: AbortSignal; readonly onTask?: (index: number) => void } = {},
  ): Promise<void> {
    if (this.#pending !== undefined) throw new TuckerdError("conflict", "a decomposition is running already");
    options.signal?.throwIfAborted();
    clearTimeout(this.#idleTimer);
    const child = this.#child ??= this.#spawn();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pending = {
      id,
      child,
      onTask: options.onTask ?? (() => {}),
      settle: (error) => error === undefined ? resolve() : reject(error),
    };
    const abort = () => {
      this.#pending?.settle(new TuckerdError("cancelled", "the decomposition was cancelled"));
      this.#end(child);
    };
    options.signal?.addEventListener("abort", abort, { once: true });
    try {
      // A child that has just died refuses the write; what it died of comes from its exit, which settles the promise.
      child.input.write(new TextEncoder().encode(`${JSON.stringify({ ...command, id })}\n`)).catch(() => {});
      await promise;
    } finally {
      options.signal?.removeEventListener("abort", abort);
      this.#pending = undefined;
      this.#armIdleTimer();
    }
  }

  /** Ends the child. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#idleTimer);
    const child = this.#child;
    if (child === undefined) return;
    this.#end(child);
    await child.process.status;
  }

  /** Kills a child and forgets it at once, so that the next command starts a new one. */
  #end(child: Child): void {
    if (this.#child === child) this.#child = undefined;
    try {
      child.process.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended already
    }
  }

  #armIdleTimer(): void {
    const child = this.#child;
    if (child === undefined) return;
    this.#idleTimer = setTimeout(() => this.#end(child), this.#idleSeconds * 1000);
    Deno.unrefTimer(this.#idleTimer);
  }

  #spawn(): Child {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", new URL("./child.ts", import.meta.url).pathname, this.#graphPath],
      // glibc otherwise keeps what a layer took, and the next layers take more.
      env: { MALLOC_ARENA_MAX: "1", MALLOC_TRIM_THRESHOLD_: "131072", MALLOC_MMAP_THRESHOLD_: "65536" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const child: Child = { process, input: process.stdin.getWriter() };
    log(1, `decomposition process ${process.pid} started`);
    void this.#listen(child);
    return child;
  }

  /** Hands the child's events to the pending command, until the child ends. */
  async #listen(child: Child): Promise<void> {
    const lines: ReadableStream<string> = child.process.stdout
      .pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
    try {
      for await (const line of lines) this.#receive(ChildEvent.parse(JSON.parse(line)));
    } catch (error) {
      this.#fail(child, TuckerdError.from(error));
      this.#end(child);
    }
    const status = await child.process.status;
    if (this.#child === child) this.#child = undefined;
    const how = status.signal === null ? `with exit code ${status.code}` : `by signal ${status.signal}`;
    log(1, `decomposition process ${child.process.pid} ended ${how}`);
    this.#fail(
      child,
      new TuckerdError("failed", `the decomposition process ended ${how} before its work was done; ask again`),
    );
  }

  /** Settles the pending command if it is this child's. */
  #fail(child: Child, error: TuckerdError): void {
    if (this.#pending?.child === child) this.#pending.settle(error);
  }

  #receive(event: ChildEvent): void {
    const pending = this.#pending;
    if (pending === undefined || event.id !== pending.id) return;
    if (event.event === "task") pending.onTask(event.index);
    else if (event.event === "done") pending.settle();
    else pending.settle(TuckerdError.fromJSON({ ...event.error, kind: event.error.kind as ErrorKind }));
  }
}
