/**
 * Attention weights for tests: from tensors in the paper's order, from seeds, and from stored reference tensors.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../../src/attention/types.ts";
import type { DecomposeOptions } from "../../src/tucker/mod.ts";
import { randomArray, uniform } from "./random.ts";

/** A tensor d×h×4×H, row-major. */
export interface LayerTensor {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

export const WHERE = { layer: 3, name: "test.layer" };

/** Options with nothing special. */
export function options(given: Partial<DecomposeOptions>): DecomposeOptions {
  return { mode: "4d-tucker", layout: "heads", balance: false, where: WHERE, ...given };
}

/** The weights that a tensor stands for: slices of Q, K, V side by side, those of O transposed below each other. */
export function weightsOf({ shape, data }: LayerTensor): AttentionWeights {
  const [d, h, stack, heads] = shape as [number, number, number, number];
  const matrices = MATRICES.map((name, s) => {
    const matrix = new Float32Array(d * h * heads);
    for (let a = 0; a < d; a++) {
      for (let b = 0; b < h; b++) {
        for (let i = 0; i < heads; i++) {
          const value = data[((a * h + b) * stack + s) * heads + i]!;
          matrix[name === "output" ? (i * h + b) * d + a : (a * heads + i) * h + b] = value;
        }
      }
    }
    return matrix;
  });
  const [query, key, value, output] = matrices as [Float32Array, Float32Array, Float32Array, Float32Array];
  return { hiddenSize: d, heads, headSize: h, query, key, value, output };
}

/** Sizes of a block. */
export interface BlockSizes {
  readonly hiddenSize: number;
  readonly heads: number;
  readonly headSize: number;
}

/** Uniform random weights. */
export function randomWeights(sizes: BlockSizes, seed: number): AttentionWeights {
  const numbers = sizes.hiddenSize * sizes.heads * sizes.headSize;
  const [query, key, value, output] = [0, 1, 2, 3].map((s) => randomArray(numbers, seed * 4 + s)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { ...sizes, query, key, value, output };
}

/** Every weight multiplied by a number. */
export function scaled(weights: AttentionWeights, factor: number): AttentionWeights {
  const result = { ...weights };
  for (const name of MATRICES) result[name] = weights[name].map((value) => value * factor);
  return result;
}

/** ‖a − b‖ / ‖a‖ over all four matrices or some of them, in float64. */
export function relativeDistance(
  a: AttentionWeights,
  b: AttentionWeights,
  matrices: readonly MatrixName[] = MATRICES,
): number {
  let [residual, norm] = [0, 0];
  for (const name of matrices) {
    for (let i = 0; i < a[name].length; i++) {
      residual += (a[name][i]! - b[name][i]!) ** 2;
      norm += a[name][i]! ** 2;
    }
  }
  return residual === 0 ? 0 : Math.sqrt(residual / norm);
}

/** Largest difference of two weights, entry by entry; NaN if any entry is. */
export function largestDifference(a: AttentionWeights, b: AttentionWeights): number {
  let largest = 0;
  for (const name of MATRICES) {
    for (let i = 0; i < a[name].length; i++) {
      const difference = Math.abs(a[name][i]! - b[name][i]!);
      if (!(difference <= largest)) largest = difference;
    }
  }
  return largest;
}

/** Reads the float32 tensors of a safetensors file. */
export function readTensors(url: URL): Record<string, LayerTensor> {
  const bytes = Deno.readFileSync(url);
  const headerLength = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)));
  const tensors: Record<string, LayerTensor> = {};
  for (const [name, { shape, data_offsets: [start, end] }] of Object.entries<StoredTensor>(header)) {
    const data = new Float32Array(bytes.slice(8 + headerLength + start, 8 + headerLength + end).buffer);
    tensors[name] = { shape, data };
  }
  return tensors;
}

interface StoredTensor {
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

/** The tensors of scripts/golden/make_golden.py, number for number. */
export function goldenTensor(kind: string, shape: readonly number[], seed: number): LayerTensor {
  const [d, h, stack, heads] = shape as [number, number, number, number];
  const data = Float64Array.from({ length: d * h * stack * heads }, uniform(seed));
  if (kind === "power-law") {
    let index = 0;
    for (let a = 1; a <= d; a++) {
      for (let b = 1; b <= h; b++) {
        for (let s = 1; s <= stack; s++) {
          for (let i = 0; i < heads; i++, index++) data[index] = data[index]! * (1 / (a * Math.sqrt(b))) / s;
        }
      }
    }
  } else if (kind === "low-rank") {
    const planted = plantedTensor(shape, seed);
    for (let i = 0; i < data.length; i++) {
      data[i] = Math.round(planted[i]! * 2 ** 20) / 2 ** 20 + data[i]! / 1024;
    }
  } else if (kind !== "random") throw new TypeError(`unknown kind of golden tensor "${kind}"`);
  return { shape, data: Float32Array.from(data) };
}

function plantedTensor([d, h, stack, heads]: readonly number[] | number[], seed: number): Float64Array {
  const [r1, r2, r3] = [Math.max(1, Math.floor(d! / 4)), Math.max(1, Math.floor(h! / 2)), 2];
  const numbers = (count: number, offset: number): Float64Array =>
    Float64Array.from({ length: count }, uniform(seed + offset));
  const core = numbers(r1 * r2 * r3 * heads!, 1);
  const factors = [numbers(d! * r1, 2), numbers(h! * r2, 3), numbers(stack! * r3, 4)];
  const ranks = [r1, r2, r3];
  let [current, shape] = [core, [r1, r2, r3, heads!]];
  for (const [mode, length] of [d!, h!, stack!].entries()) {
    const [outer, inner] = [product(shape.slice(0, mode)), product(shape.slice(mode + 1))];
    const next = new Float64Array(outer * length * inner);
    for (let o = 0; o < outer; o++) {
      for (let p = 0; p < length; p++) {
        for (let k = 0; k < ranks[mode]!; k++) {
          const weight = factors[mode]![p * ranks[mode]! + k]!;
          for (let i = 0; i < inner; i++) {
            next[(o * length + p) * inner + i]! += weight * current[(o * ranks[mode]! + k) * inner + i]!;
          }
        }
      }
    }
    [current, shape] = [next, shape.with(mode, length)];
  }
  return current;
}

const product = (sizes: readonly number[]): number => sizes.reduce((total, size) => total * size, 1);
