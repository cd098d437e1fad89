/**
 * The GPU: throughput of the matrix product on the shapes that a decomposition meets, and the time of GPT-J's layers.
 *
 * A software adapter isn't a GPU: it is refused, and with `software` measured on small sizes under its own name.
 *
 * @module
 */
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { benchLayers, generateLayer } from "./gpu_layers.ts";
import { peakOf } from "./gpu_peaks.ts";
import { benchProduct, productsOf } from "./gpu_products.ts";
import type { GpuBench, ProductMeasure } from "./gpu_report.ts";
import type { ModelShape } from "./model_shape.ts";

/** What is measured. */
export interface GpuBenchSizes {
  /** Sizes of square products. */
  readonly squares: readonly number[];
  readonly model: ModelShape;
  /** Products are repeated until they compute about so much, 4 to 200 times. */
  readonly flops: number;
  /** How often each time is taken; the median counts. */
  readonly runs: number;
}

/** Options of {@linkcode benchGpu}. */
export interface GpuBenchOptions {
  /** float32 peak of the device, where it isn't in the list or isn't believed. */
  readonly peakTflops?: number | undefined;
  /** Measures a software adapter, on small sizes. */
  readonly software?: boolean;
  /** Other sizes than those of GPT-J, or of a small model on software. */
  readonly sizes?: GpuBenchSizes;
}

const GPTJ: GpuBenchSizes = {
  squares: [4096, 8192],
  model: { name: "GPT-J", hidden: 4096, heads: 16, headSize: 256, ranks: [[64, 4, 2], [304, 19, 2]], layers: 28 },
  flops: 2e12,
  runs: 5,
};
const SMALL: GpuBenchSizes = {
  squares: [64],
  model: { name: "small", hidden: 64, heads: 2, headSize: 16, ranks: [[16, 4, 2]], layers: 2 },
  flops: 1e6,
  runs: 3,
};

/**
 * All GPU benchmarks.
 *
 * @throws TuckerdError `unavailable` where there is no adapter, or only a software one and it wasn't asked for
 */
export async function benchGpu(options: GpuBenchOptions = {}): Promise<GpuBench> {
  const software = options.software === true;
  const { squares, model, flops, runs } = options.sizes ?? (software ? SMALL : GPTJ);
  using gpu = await createGpuOps({ allowFallbackAdapter: software, float16From: 0 });
  using cpu = await createCpuOps();
  const adapter = gpu.adapter;
  const peak = peakOf(adapter, options.peakTflops);
  const layer = await generateLayer(model, cpu);
  const products: ProductMeasure[] = [];
  for (const product of productsOf(model, squares)) {
    products.push(await benchProduct(product, { gpu, ...(peak === undefined ? { cpu } : {}), flops, runs }));
  }
  const times = await benchLayers({ model, layer, gpu, cpu, runs });
  return { adapter, software: adapter.endsWith(", software"), date: new Date(), peak, products, times };
}
