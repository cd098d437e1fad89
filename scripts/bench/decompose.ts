/**
 * Benchmark of the decomposition on the CPU against what TensorLy does (`tensorly_like.py`): one BERT-base layer and one GPT-J
 * layer of noise whose rows and columns fall slowly, which converges more slowly than trained weights do.
 *
 * @module
 */
import { type AttentionWeights, MATRICES } from "../../src/attention/types.ts";
import { createCpuOps, decomposeLayer, type LayerShape } from "../../src/tucker/mod.ts";
import type { LayerDecomposition, Ranks } from "../../src/tucker/types.ts";
import type { BenchResult } from "./types.ts";

interface BenchCase {
  readonly name: string;
  /** d, h, 4, H. */
  readonly shape: LayerShape;
  readonly ranks: Ranks;
  /** Ours runs this often, as for the layers of a model; the median counts. */
  readonly repeats: number;
  /** The baseline takes minutes and gigabytes. */
  readonly slow: boolean;
}

const GPTJ = [4096, 256, 4, 16] as const;
const CASES: readonly BenchCase[] = [
  { name: "BERT-base layer at 256,32,2", shape: [768, 64, 4, 12], ranks: [256, 32, 2], repeats: 12, slow: false },
  { name: "GPT-J layer at 64,4,2", shape: GPTJ, ranks: [64, 4, 2], repeats: 3, slow: true },
  { name: "GPT-J layer at 304,19,2", shape: GPTJ, ranks: [304, 19, 2], repeats: 3, slow: true },
];

/** Tolerance of the error's change at which the baseline stops; TensorLy's comparison in the issue. */
const BASELINE_TOLERANCE = "1e-5";
/** Ours must not be above the baseline's error by more than this. */
const EQUAL_ERROR = 1e-4;

/**
 * Times the decomposition of one layer, CPU only.
 *
 * @param options.slow also run the baseline on the GPT-J layer (minutes, 10 GB); otherwise its ratio is NaN
 */
export async function benchDecompose(options: { readonly slow?: boolean } = {}): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const benchCase of CASES) {
    const weights = makeWeights(benchCase.shape);
    const ours = await timeOurs(benchCase, weights);
    const baseline = benchCase.slow && options.slow !== true
      ? "not run: give --slow"
      : await timeBaseline(benchCase, weights);
    results.push(compare(benchCase, ours, baseline));
    if (typeof baseline === "string") continue;
    const equal = await timeToError(benchCase, weights, baseline.relativeError + EQUAL_ERROR);
    const name = `${benchCase.name}, stopped at the baseline's error`;
    if (equal !== undefined) results.push(compare({ ...benchCase, name }, equal, baseline));
  }
  return results;
}

function compare({ name }: BenchCase, ours: LayerDecomposition, baseline: Baseline | string): BenchResult {
  const sweeps = `error ${ours.relativeError.toFixed(6)} after ${ours.sweeps} sweeps`;
  const shared = { name, baseline: "NumPy, TensorLy's method", seconds: ours.seconds };
  if (typeof baseline === "string") {
    return { ...shared, ratio: Number.NaN, baselineSeconds: Number.NaN, note: `${sweeps}; baseline ${baseline}` };
  }
  const excess = ours.relativeError - baseline.relativeError;
  const verdict = excess <= EQUAL_ERROR ? "equal" : `HIGHER by ${excess.toExponential(1)}`;
  return {
    ...shared,
    ratio: baseline.seconds / ours.seconds,
    baselineSeconds: baseline.seconds,
    note: `${sweeps}; baseline ${baseline.relativeError.toFixed(6)} after ${baseline.sweeps}: ${verdict}`,
  };
}

/** The run of median time. */
async function timeOurs(
  { name, ranks, repeats }: BenchCase,
  weights: AttentionWeights,
  sweeps?: number,
): Promise<LayerDecomposition> {
  using ops = await createCpuOps();
  const where = { layer: 0, name };
  const options = { mode: "4d-tucker", layout: "heads", balance: false, ranks, sweeps, where } as const;
  const runs: LayerDecomposition[] = [];
  for (let run = 0; run < repeats; run++) runs.push(await decomposeLayer(weights, options, ops));
  return runs.sort((a, b) => a.seconds - b.seconds)[Math.floor(repeats / 2)]!;
}

/** The fewest sweeps that reach an error, timed; undefined where the default's don't. */
async function timeToError(
  benchCase: BenchCase,
  weights: AttentionWeights,
  error: number,
): Promise<LayerDecomposition | undefined> {
  for (let sweeps = 1;; sweeps++) {
    const once = await timeOurs({ ...benchCase, repeats: 1 }, weights, sweeps);
    if (once.relativeError <= error) return await timeOurs(benchCase, weights, sweeps);
    if (once.converged) return undefined;
  }
}

/** What tensorly_like.py prints. */
interface Baseline {
  readonly seconds: number;
  readonly sweeps: number;
  readonly relativeError: number;
}

/** Runs the baseline; gives the reason where it can't run. */
async function timeBaseline({ shape, ranks }: BenchCase, weights: AttentionWeights): Promise<Baseline | string> {
  const script = new URL("tensorly_like.py", import.meta.url).pathname;
  const file = await Deno.makeTempFile({ prefix: "tuckerd-bench-" });
  try {
    await Deno.writeFile(file, new Uint8Array(paperTensor(weights).buffer));
    const python = Deno.env.get("TUCKERD_BENCH_PYTHON") ?? "python3";
    const args = [script, file, shape.join(","), ranks.join(","), BASELINE_TOLERANCE];
    const { success, stdout, stderr } = await new Deno.Command(python, { args }).output();
    if (success) return JSON.parse(new TextDecoder().decode(stdout));
    return `not run: ${python} failed (${new TextDecoder().decode(stderr).trim().split("\n").at(-1)})`;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "not run: no python3 with NumPy on this machine";
    throw error;
  } finally {
    await Deno.remove(file);
  }
}

/** Weights whose modes' singular values fall slowly: uniform noise, rows and columns scaled by powers. */
function makeWeights([hiddenSize, headSize, , heads]: LayerShape): AttentionWeights {
  const width = heads * headSize;
  const [query, key, value, output] = MATRICES.map((name, s) => {
    const matrix = new Float32Array(hiddenSize * width);
    let state = 12345 + s;
    for (let a = 0; a < hiddenSize; a++) {
      const row = (a + 1) ** -0.5;
      for (let c = 0; c < width; c++) {
        state = state * 48271 % 2147483647; // the minimal standard generator (Park & Miller 1988)
        const entry = (state / 2147483647 - 0.5) * row * (c % headSize + 1) ** -0.25;
        matrix[name === "output" ? c * hiddenSize + a : a * width + c] = entry;
      }
    }
    return matrix;
  }) as [Float32Array<ArrayBuffer>, Float32Array, Float32Array, Float32Array];
  return { hiddenSize, heads, headSize, query, key, value, output };
}

/** The tensor in the paper's order d×h×4×H. */
function paperTensor(weights: AttentionWeights): Float32Array<ArrayBuffer> {
  const { hiddenSize: d, heads, headSize: h } = weights;
  const tensor = new Float32Array(d * h * 4 * heads);
  for (const [s, name] of MATRICES.entries()) {
    const matrix = weights[name];
    for (let a = 0; a < d; a++) {
      for (let i = 0; i < heads; i++) {
        for (let b = 0; b < h; b++) {
          const value = name === "output" ? matrix[(i * h + b) * d + a]! : matrix[(a * heads + i) * h + b]!;
          tensor[((a * h + b) * 4 + s) * heads + i] = value;
        }
      }
    }
  }
  return tensor;
}
