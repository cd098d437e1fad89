/**
 * Whole start of the default model (process start to ready), cold and with cached factors, and how soon new ranks serve.
 *
 * @module
 */
import { ServerProcess } from "../../test/support/program.ts";
import { type BenchResult, comparison } from "./types.ts";

const runs = 5;

async function start(cache: string, args: readonly string[]): Promise<{ server: ServerProcess; seconds: number }> {
  const began = performance.now();
  const server = await ServerProcess.start(["--cache-dir", cache, ...args]);
  await server.ready();
  return { server, seconds: (performance.now() - began) / 1000 };
}

/** Seconds from process start to ready. */
async function startSeconds(cache: string, args: readonly string[] = []): Promise<number> {
  const { server, seconds } = await start(cache, args);
  await server[Symbol.asyncDispose]();
  return seconds;
}

/** Starts: dense is the baseline, since it is what any server of the model needs. */
export async function benchStart(): Promise<BenchResult[]> {
  const dense: number[] = [], cold: number[] = [], cached: number[] = [];
  for (let run = 0; run < runs; run++) {
    const cache = await Deno.makeTempDir();
    dense.push(await startSeconds(cache, ["--mode", "none"]));
    cold.push(await startSeconds(cache));
    cached.push(await startSeconds(cache));
    await Deno.remove(cache, { recursive: true });
  }
  const baseline = "the same server with --mode none";
  return [
    comparison({ name: "start, cold", baseline, note: "aim 3 s" }, { seconds: cold, baselineSeconds: dense }),
    comparison({ name: "start, cached factors", baseline, note: "aim 1 s" }, {
      seconds: cached,
      baselineSeconds: dense,
    }),
  ];
}

/** From the request for other ranks to an answer that they gave: with cached factors, against factors computed anew. */
export async function benchRerank(): Promise<BenchResult[]> {
  const cache = await Deno.makeTempDir();
  const { server } = await start(cache, []);
  const seconds: number[] = [], baselineSeconds: number[] = [];
  const rerank = async (ranks: readonly number[]): Promise<number> => {
    const began = performance.now();
    const response = await server.post("/v1/compression?wait=true", { ranks });
    const { generation } = await response.json();
    const answer = await server.post("/", { inputs: { question: "Who?", context: "It was Ada." } });
    await answer.body?.cancel();
    const served = Number(answer.headers.get("x-tuckerd-generation"));
    if (response.status !== 200 || served !== generation) {
      throw new Error(`ranks ${ranks}: ${response.status}, ${served}`);
    }
    return (performance.now() - began) / 1000;
  };
  for (let run = 0; run < runs; run++) {
    baselineSeconds.push(await rerank([40 + run, 16, 4])); // not in the cache
    await rerank([30, 12, 4]);
    seconds.push(await rerank([40 + run, 16, 4])); // in the cache
  }
  await server[Symbol.asyncDispose]();
  await Deno.remove(cache, { recursive: true });
  const names = { name: "re-rank, cached factors", baseline: "factors computed anew", note: "aim 0.2 s" };
  return [comparison(names, { seconds, baselineSeconds })];
}
