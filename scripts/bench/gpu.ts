/**
 * The GPU: throughput of the matrix product on the shapes that a decomposition meets, and the time of GPT-J's layers.
 * `deno run -A scripts/bench/gpu.ts [--peak-tflops N] [--software] [--json]`
 *
 * A software adapter isn't a GPU: it is refused, and with `--software` measured on small sizes under its own name.
 *
 * @module
 */
import type { AttentionWeights } from "../../src/attention/types.ts";
import { table } from "../../src/cli/tables.ts";
import { print } from "../../src/log.ts";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { engineFor } from "../../src/tucker/engine.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { hooi } from "../../src/tucker/hooi.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { randomArray } from "../../test/tucker/random.ts";
import { type BenchResult, comparison, median } from "./types.ts";

/** Options of {@linkcode benchGpu}. */
export interface GpuBenchOptions {
  /** float32 peak of the device (H200 SXM: 66.9), which products are then measured against instead of the CPU. */
  readonly peakTflops?: number;
  /** Measures a software adapter, on small sizes. */
  readonly software?: boolean;
}

const RUNS = 5;

interface LayerShape {
  readonly name: string;
  readonly hidden: number;
  readonly heads: number;
  readonly headSize: number;
  readonly ranks: Ranks;
  readonly layers: number;
}
const GPTJ: LayerShape = { name: "GPT-J", hidden: 4096, heads: 16, headSize: 256, ranks: [64, 4, 2], layers: 28 };
const SMALL: LayerShape = { name: "small", hidden: 256, heads: 4, headSize: 64, ranks: [64, 16, 2], layers: 2 };

/** One product of the decomposition: its operands, what runs, what it computes and moves. */
interface ProductCase {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  readonly run: (ops: TuckerOps, operands: readonly OpsTensor[]) => OpsTensor;
  readonly flops: number;
  readonly bytes: number;
}

/** All GPU benchmarks. */
export async function benchGpu(options: GpuBenchOptions = {}): Promise<BenchResult[]> {
  using gpu = await createGpuOps({ allowFallbackAdapter: options.software === true });
  using cpu = await createCpuOps();
  const layer = options.software === true ? SMALL : GPTJ;
  const results: BenchResult[] = [];
  for (const product of productsOf(layer, options.software === true ? [256] : [4096, 8192])) {
    results.push(await benchProduct(product, { gpu, cpu }, options));
  }
  results.push(await benchUpload(gpu, layer));
  results.push(...await benchLayer(layer, gpu, cpu));
  return results;
}

function productsOf(
  { hidden, heads, headSize, ranks: [r1, r2] }: LayerShape,
  squares: readonly number[],
): ProductCase[] {
  const behind = 4 * heads * headSize;
  const products = squares.map((n): ProductCase => ({
    name: `product ${n}×${n}×${n}`,
    shapes: [[n, n], [n, n]],
    run: (ops, [a, b]) => ops.matmul(a!, b!),
    flops: 2 * n ** 3,
    bytes: 4 * 3 * n ** 2,
  }));
  const tensor = [hidden, 4, heads, headSize];
  const modes = [["hidden", 0, r1], ["stack", 1, 2], ["head-size", 3, r2]] as const;
  for (const [name, mode, rank] of modes) {
    const length = tensor[mode]!;
    products.push({
      name: `${name} mode product [${tensor}] × ${length}×${rank}`,
      shapes: [tensor, [length, rank]],
      run: (ops, [a, b]) => ops.modeProduct(a!, mode, b!),
      flops: 2 * hidden * behind * rank,
      bytes: 4 * hidden * behind * (1 + rank / length),
    });
  }
  return products;
}

/** Seconds of a product, the cost of the one wait taken off: repeated until that is small. */
async function productSeconds(ops: TuckerOps, product: ProductCase, repeats: number): Promise<number[]> {
  const operands = product.shapes.map((shape, index) =>
    ops.tensor(randomArray(shape.reduce((size, length) => size * length, 1), index), shape)
  );
  using probe = ops.tensor(new Float32Array(1), [1]);
  const timed = async (count: number): Promise<number> => {
    const start = performance.now();
    const made: OpsTensor[] = [];
    for (let i = 0; i < count; i++) {
      const result = product.run(ops, operands);
      if (ops.backend === "cpu") await ops.read(result); // queued on the host otherwise, all at once
      made.push(result);
      while (made.length > 1) made.shift()![Symbol.dispose]();
    }
    await ops.read(probe);
    for (const tensor of made) tensor[Symbol.dispose]();
    return (performance.now() - start) / 1000;
  };
  await timed(2);
  const seconds: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const idle = await timed(0);
    seconds.push(Math.max(1e-9, (await timed(repeats) - idle) / repeats));
  }
  for (const operand of operands) operand[Symbol.dispose]();
  return seconds;
}

async function benchProduct(
  product: ProductCase,
  { gpu, cpu }: { readonly gpu: TuckerOps; readonly cpu: TuckerOps },
  { peakTflops }: GpuBenchOptions,
): Promise<BenchResult> {
  const repeats = Math.max(4, Math.min(200, Math.round(2e12 / product.flops)));
  const seconds = await productSeconds(gpu, product, repeats);
  const rate = `${(product.flops / median(seconds) / 1e12).toPrecision(3)} TFLOPS, ` +
    `${(product.bytes / median(seconds) / 1e9).toPrecision(3)} GB/s, ${gpu.adapter}`;
  if (peakTflops !== undefined) {
    const baselineSeconds = [product.flops / (peakTflops * 1e12)];
    const note = `${rate}; aim 0.35 of the peak where arithmetic limits`;
    return comparison({ name: product.name, baseline: `${peakTflops} TFLOPS peak`, note }, {
      seconds,
      baselineSeconds,
    });
  }
  const baselineSeconds = await productSeconds(cpu, product, 1);
  return comparison({ name: product.name, baseline: cpu.adapter, note: rate }, { seconds, baselineSeconds });
}

/** Upload of one layer, against a copy in host memory. */
async function benchUpload(gpu: TuckerOps, shape: LayerShape): Promise<BenchResult> {
  const length = 4 * shape.hidden * shape.heads * shape.headSize;
  const data = new Float32Array(length).fill(1);
  const seconds: number[] = [], baselineSeconds: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const start = performance.now();
    using tensor = gpu.tensor(data, [length]);
    using probe = gpu.tensor(new Float32Array(1), [1]);
    await gpu.read(probe);
    seconds.push((performance.now() - start) / 1000);
    void tensor;
    const copy = performance.now();
    data.slice();
    baselineSeconds.push((performance.now() - copy) / 1000);
  }
  const note = `${(4 * length / median(seconds) / 1e9).toFixed(2)} GB/s, ${gpu.adapter}`;
  return comparison({ name: `upload of a ${shape.name} layer`, baseline: "a copy in host memory", note }, {
    seconds,
    baselineSeconds,
  });
}

/** Decompositions of a layer's tensor and of all layers with everything around, against the CPU operations. */
async function benchLayer(shape: LayerShape, gpu: TuckerOps, cpu: TuckerOps): Promise<BenchResult[]> {
  const { hidden, heads, headSize, ranks } = shape;
  const dimensions = [hidden, 4, heads, headSize];
  const scaled = await layerTensor(shape, cpu);
  let sweeps = 0;
  const decompose = async (ops: TuckerOps, resident?: OpsTensor): Promise<number> => {
    const start = performance.now();
    const engine = engineFor(ops, scaled.length);
    const tensor = resident ?? engine.upload(scaled, dimensions);
    ({ sweeps } = await hooi(engine, tensor, { ranks }));
    if (resident === undefined) tensor[Symbol.dispose]();
    return (performance.now() - start) / 1000;
  };
  await decompose(gpu); // pipelines and buffers are warm after it
  const withUpload: number[] = [], without: number[] = [], onCpu = [await decompose(cpu)];
  {
    using resident = gpu.tensor(scaled, dimensions);
    for (let run = 0; run < RUNS; run++) without.push(await decompose(gpu, resident));
  }
  for (let run = 0; run < RUNS; run++) withUpload.push(await decompose(gpu));
  const what = `${shape.name} layer ${hidden}×${headSize}×4×${heads} at (${ranks})`;
  const result = (name: string, note: string, seconds: number[], baselineSeconds: number[]): BenchResult =>
    comparison({ name, baseline: cpu.adapter, note: `${note}${gpu.adapter}` }, { seconds, baselineSeconds });
  const converged = `${sweeps} sweeps to convergence, `;
  const weights = weightsOf(shape, scaled);
  const all = [await allLayers(shape, weights, gpu)];
  const allOnCpu = [shape.layers * await allLayers({ ...shape, layers: 1 }, weights, cpu)];
  return [
    result(`${what}, with upload`, `aim 0.1 s; ${converged}`, withUpload, onCpu),
    result(`${what}, without upload`, converged, without, onCpu),
    result(`all ${shape.layers} layers end to end, errors measured`, "CPU time from one layer; ", all, allOnCpu),
  ];
}

/**
 * A layer's tensor of norm 1: half of its energy in a product of rank 64 with falling singular values, half noise, which is
 * flatter than trained attention.
 */
async function layerTensor({ hidden, heads, headSize }: LayerShape, cpu: TuckerOps): Promise<Float32Array> {
  const [rank, behind] = [64, 4 * heads * headSize];
  const norm = Math.sqrt(hidden * behind / 3); // of uniform numbers in [-1, 1)
  const noise = randomArray(hidden * behind, 1);
  const falling = randomArray(hidden * rank, 2).map((value, index) => value / (1 + index % rank));
  using left = cpu.tensor(falling, [hidden, rank]);
  using right = cpu.tensor(randomArray(rank * behind, 3), [rank, behind]);
  using product = cpu.matmul(left, right);
  const planted = await cpu.read(product);
  const plantedNorm = Math.sqrt(planted.reduce((sum, value) => sum + value * value, 0));
  return planted.map((value, index) => Math.SQRT1_2 * (value / plantedNorm + noise[index]! / norm));
}

/** The weights that such a tensor (d×4×H×h) stands for. */
function weightsOf({ hidden, heads, headSize }: LayerShape, tensor: Float32Array): AttentionWeights {
  const width = heads * headSize;
  const slice = (slot: number, index: (row: number, column: number) => number): Float32Array => {
    const matrix = new Float32Array(hidden * width);
    for (let row = 0; row < hidden; row++) {
      for (let column = 0; column < width; column++) {
        matrix[index(row, column)] = tensor[(row * 4 + slot) * width + column]!;
      }
    }
    return matrix;
  };
  const [query, key, value] = [0, 1, 2].map((slot) => slice(slot, (row, column) => row * width + column)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const output = slice(3, (row, column) => column * hidden + row);
  return { hiddenSize: hidden, heads, headSize, query, key, value, output };
}

/** Seconds from weights to factors with their errors, layer after layer. */
async function allLayers({ ranks, layers }: LayerShape, weights: AttentionWeights, ops: TuckerOps): Promise<number> {
  const start = performance.now();
  for (let layer = 0; layer < layers; layer++) {
    const where = { layer, name: "generated" };
    await decomposeLayer(weights, { mode: "4d-tucker", layout: "heads", ranks, balance: false, where }, ops);
  }
  return (performance.now() - start) / 1000;
}

if (import.meta.main) {
  const at = Deno.args.indexOf("--peak-tflops");
  const peakTflops = at < 0 ? undefined : Number(Deno.args[at + 1]);
  if (peakTflops !== undefined && !(peakTflops > 0)) {
    print("--peak-tflops takes the device's float32 peak in TFLOPS, such as 66.9");
    Deno.exit(2);
  }
  const results = await benchGpu({
    ...(peakTflops === undefined ? {} : { peakTflops }),
    software: Deno.args.includes("--software"),
  });
  if (Deno.args.includes("--json")) print(JSON.stringify(results, null, 2));
  else {
    print(table([
      ["what", "seconds", "against", "seconds", "times faster", "note"],
      ...results.map(({ name, seconds, baseline, baselineSeconds, ratio, note }) => [
        name,
        seconds.toPrecision(3),
        baseline,
        baselineSeconds.toPrecision(3),
        ratio.toFixed(2),
        note,
      ]),
    ]));
  }
}
