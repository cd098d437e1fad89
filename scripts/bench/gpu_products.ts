/**
 * The products of a decomposition on their own: what each computes and moves, and how long it takes.
 *
 * @module
 */
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import { randomArray } from "../../test/tucker/random.ts";
import type { ModelShape } from "./model_shape.ts";
import type { ProductMeasure } from "./gpu_report.ts";

/** One product of the decomposition. */
interface ProductCase extends Pick<ProductMeasure, "name" | "storage" | "flops" | "bytes"> {
  readonly shapes: readonly (readonly number[])[];
  /** Records it; a Gram matrix is awaited, its wait is part of it. */
  readonly run: (ops: TuckerOps, operands: readonly OpsTensor[]) => OpsTensor | Promise<unknown>;
}

/** Squares, and what the model's layers need at its ranks, in float32 and with the weights in float16. */
export function productsOf(
  { hidden, heads, headSize, ranks }: ModelShape,
  squares: readonly number[],
): ProductCase[] {
  const behind = 4 * heads * headSize;
  const tensor = [hidden, 4, heads, headSize];
  const products = squares.map((n): ProductCase => ({
    name: `product ${n}×${n}×${n}`,
    storage: "float32",
    shapes: [[n, n], [n, n]],
    run: (ops, [a, b]) => ops.matmul(a!, b!),
    flops: 2 * n ** 3,
    bytes: 4 * 3 * n ** 2,
  }));
  for (const [storage, width] of [["float32", 4], ["float16", 2]] as const) {
    for (const [mode, name, index] of [[0, "hidden", 0], [1, "stack", 2], [3, "head-size", 1]] as const) {
      const length = tensor[mode]!;
      for (const rank of new Set(ranks.map((choice) => choice[index]))) {
        products.push({
          name: `${name} mode product [${tensor}] × ${length}×${rank}`,
          storage,
          shapes: [tensor, [length, rank]],
          run: (ops, [a, b]) => ops.modeProduct(a!, mode, b!),
          flops: 2 * hidden * behind * rank,
          bytes: hidden * behind * (width + 4 * rank / length),
        });
      }
      if (mode === 0) continue; // its Gram matrix is always that of a smaller tensor
      products.push({
        name: `${name} Gram matrix of [${tensor}], with its wait`,
        storage,
        shapes: [tensor],
        run: (ops, [a]) => ops.gram(a!, mode),
        flops: hidden * behind * (length + 1), // of the upper triangle
        bytes: hidden * behind * width,
      });
    }
  }
  return products;
}

interface ProductBench {
  readonly gpu: TuckerOps;
  readonly cpu?: TuckerOps;
  /** Operations to spend on it. */
  readonly flops: number;
  readonly runs: number;
}

/** Measures a product, and on the CPU as well where that is given. */
export async function benchProduct(
  { run, shapes, ...product }: ProductCase,
  { gpu, cpu, flops, runs }: ProductBench,
): Promise<ProductMeasure> {
  const repeats = Math.max(4, Math.min(200, Math.round(flops / product.flops)));
  const seconds = await productSeconds(gpu, { ...product, run, shapes }, { repeats, runs });
  if (cpu === undefined) return { ...product, seconds };
  return {
    ...product,
    seconds,
    cpuSeconds: await productSeconds(cpu, { ...product, run, shapes }, { repeats: 1, runs }),
  };
}

/** Random numbers, the same again after some: making hundreds of millions takes longer than measuring. */
function repeated(length: number, seed: number): Float32Array {
  const block = randomArray(Math.min(length, 65537), seed);
  const numbers = new Float32Array(length);
  for (let at = 0; at < length; at += block.length) numbers.set(block.subarray(0, length - at), at);
  return numbers;
}

/** Seconds of a product, the cost of the one wait taken off: repeated until that is small. */
async function productSeconds(
  ops: TuckerOps,
  { run, shapes, storage }: ProductCase,
  { repeats, runs }: { readonly repeats: number; readonly runs: number },
): Promise<number[]> {
  const operands: OpsTensor[] = [];
  for (const [index, shape] of shapes.entries()) {
    const numbers = repeated(shape.reduce((size, length) => size * length, 1), index);
    const half = index === 0 && storage === "float16" && ops.weights !== undefined;
    const data = half ? new Float32Array(new Float16Array(numbers)) : numbers;
    operands.push(half ? await ops.weights!(data, shape, 1) : ops.tensor(data, shape));
  }
  if (storage === "float16" && ops.backend === "webgpu" && !ops.adapter.includes("float16")) {
    throw new Error(`${shapes[0]} was meant to be stored as float16 and isn't: see DEBUG=1`);
  }
  using probe = ops.tensor(new Float32Array(1), [1]);
  const timed = async (count: number): Promise<number> => {
    const start = performance.now();
    const made: OpsTensor[] = [];
    for (let i = 0; i < count; i++) {
      const result = run(ops, operands);
      if (result instanceof Promise) {
        await result;
        continue;
      }
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
  for (let round = 0; round < runs; round++) {
    const idle = await timed(0);
    seconds.push(Math.max(1e-9, (await timed(repeats) - idle) / repeats));
  }
  for (const operand of operands) operand[Symbol.dispose]();
  return seconds;
}
