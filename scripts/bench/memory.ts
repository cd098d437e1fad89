/**
 * Peak memory of compressing a model with GPT-J's attention (4096, 16 heads of 256, float16, external data), layer after layer. The
 * aim: the weights of about two layers beyond the file, so that 7 billion parameters fit a 24 GB machine.
 *
 * @module
 */
import { type BenchResult } from "./types.ts";
import { writeSyntheticModel } from "./synthetic_model.ts";

const sizes = { hiddenSize: 4096, heads: 16, headSize: 256, feedForward: 0, weights: "float16" } as const;
const main = new URL("../../src/main.ts", import.meta.url).pathname;

/** Resident bytes of a process and its children while it ran, and its seconds. */
interface Usage {
  /** Sum of the peaks that the kernel keeps (`VmHWM`): an upper bound, since processes needn't have theirs at the same time. */
  readonly peakBytes: number;
  /** Largest sum of `VmRSS` at one look, every 20 ms: a lower bound. */
  readonly togetherBytes: number;
  readonly seconds: number;
}

/** Processes that ended are remembered from the last look. */
async function runMeasured(args: readonly string[]): Promise<Usage> {
  const began = performance.now();
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", main, ...args],
    stdout: "null",
    stderr: "inherit",
  })
    .spawn();
  const peaks = new Map<number, number>();
  let togetherBytes = 0;
  const look = () => {
    let now = 0;
    for (const pid of [process.pid, ...childrenOf(process.pid)]) {
      const memory = memoryOf(pid);
      if (memory === undefined) continue;
      peaks.set(pid, memory.peak);
      now += memory.now;
    }
    togetherBytes = Math.max(togetherBytes, now);
  };
  const timer = setInterval(look, 20);
  const { success } = await process.status;
  clearInterval(timer);
  if (!success) throw new Error(`tuckerd ${args.join(" ")} failed`);
  const peakBytes = [...peaks.values()].reduce((sum, bytes) => sum + bytes, 0);
  return { peakBytes, togetherBytes, seconds: (performance.now() - began) / 1000 };
}

function childrenOf(pid: number): number[] {
  const children: number[] = [];
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const list = Deno.readTextFileSync(`/proc/${pid}/task/${name}/children`);
      children.push(...list.split(" ").filter((text) => text !== "").map(Number));
    }
  } catch {
    // it has just ended
  }
  return children;
}

function memoryOf(pid: number): { readonly now: number; readonly peak: number } | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const [now, peak] = ["VmRSS", "VmHWM"].map((name) => new RegExp(`${name}:\\s*(\\d+)`).exec(status)?.[1]);
    return now === undefined || peak === undefined ? undefined : { now: Number(now) * 1024, peak: Number(peak) * 1024 };
  } catch {
    return undefined; // it has just ended
  }
}

/** Compresses 1, 2, 4 and 8 layers: were more than one layer held at a time, more layers would take more memory. */
export async function benchMemory(): Promise<BenchResult[]> {
  const folder = await Deno.makeTempDir();
  const layerBytes = 4 * 4096 * 4096 * 4;
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  try {
    const results: BenchResult[] = [];
    let one: Usage | undefined;
    for (const layers of [1, 2, 4, 8]) {
      const model = `${folder}/gptj-${layers}`;
      await writeSyntheticModel(model, { ...sizes, layers });
      const args = ["compress", "--model", model, "--out", `${model}-out`, "--ranks", "64,4,2", "--cache-dir", "off"];
      const usage = await runMeasured([...args, "--device", "cpu"]);
      await Deno.remove(model, { recursive: true });
      await Deno.remove(`${model}-out`, { recursive: true });
      one ??= usage;
      const growth = (usage.peakBytes - one.peakBytes) / layerBytes;
      results.push({
        name: `compress GPT-J layers at 64,4,2: ${layers} (${gib(layers * layerBytes)} as float32)`,
        baseline: "1 such layer",
        seconds: usage.seconds,
        baselineSeconds: one.seconds,
        ratio: one.seconds / usage.seconds,
        note: `memory of both processes ${gib(usage.togetherBytes)} at one time, peaks added ${gib(usage.peakBytes)}, ${
          growth.toFixed(2)
        } layers of float32 more than 1 layer`,
      });
    }
    return results;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
