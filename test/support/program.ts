/**
 * The program as its users run it: `src/main.ts` in a process of its own.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text_line_stream.js";

const main = new URL("../../src/main.ts", import.meta.url).pathname;

/** What a finished task left. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a task to its end. */
export async function runProgram(args: readonly string[], env: Record<string, string> = {}): Promise<Finished> {
  const { code, stdout, stderr } = await command(args, env).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

function command(args: readonly string[], env: Record<string, string>): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", main, ...args],
    env: { DEBUG: "0", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** A serving process. Dispose it to end it. */
export class ServerProcess implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;
  /** Where it listens. */
  url = "";

  private constructor(args: readonly string[], env: Record<string, string>) {
    this.#process = command(["start", "--port", "0", ...args], env).spawn();
    const lines: ReadableStream<string> = this.#process.stderr
      .pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
    this.#lines = lines[Symbol.asyncIterator]();
    this.#process.stdout.cancel();
  }

  /** Starts a server and resolves once it listens. */
  static async start(args: readonly string[] = [], env: Record<string, string> = {}): Promise<ServerProcess> {
    const server = new ServerProcess(args, env);
    server.url = (await server.line(/http:\/\/\S+:\d+/))[0];
    return server;
  }

  /** Resolves once the first generation serves. */
  async ready(): Promise<void> {
    await this.line(/^ready: /);
  }

  /** The next line of stderr that matches. */
  async line(pattern: RegExp): Promise<RegExpMatchArray> {
    for (const seen: string[] = [];;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error(`the server ended before it wrote ${pattern}; it wrote: ${seen.join("\n")}`);
      const match = value.match(pattern);
      if (match !== null) return match;
      seen.push(value);
    }
  }

  /** Process numbers of its children. */
  async children(): Promise<number[]> {
    const { pid } = this.#process;
    const lists = [];
    for await (const thread of Deno.readDir(`/proc/${pid}/task`)) {
      try {
        lists.push(await Deno.readTextFile(`/proc/${pid}/task/${thread.name}/children`));
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error; // the thread has ended since it was listed
      }
    }
    return lists.join(" ").split(/\s+/).filter((text) => text !== "").map(Number);
  }

  /** Sends JSON and gives the response. */
  async post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return await fetch(`${this.url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  }

  /** Asks it to stop as an operator does, and gives its exit status. */
  async stop(): Promise<Deno.CommandStatus> {
    this.#process.kill("SIGTERM");
    return await this.#process.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // it has ended already
    }
    await this.#process.status;
    await this.#lines.return?.();
  }
}
