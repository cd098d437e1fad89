/**
 * How a product runs: on which kernel, and into how many parts its contraction is cut.
 *
 * @module
 */
import { LOAD } from "../../kernels/mod.ts";
import type { GpuLimits } from "./limits.ts";
import { type Contraction, loadOf, type Operand } from "./operand.ts";
import { regionLimit } from "./region.ts";

/**
 * The kernel of a product: `skinny` has few rows and `tall` few columns, both limited by memory; `large` and `small` have
 * tiles of 128×128 and 64×64.
 */
export type ProductKernel = "skinny" | "tall" | "large" | "small";

/** Longest chain of float32 additions: longer contractions are cut, and the parts added. */
const CHAIN = 1024;
/** Shortest part that a contraction is cut into for the sake of parallelism. */
const SHORTEST_CHAIN = 128;
/** Chunks start at multiples of this: of what the kernels stage at a time, and of vectors. */
const CHUNK_UNIT = 16;
/** Numbers of partial results that are held at once. */
const PARTIALS = 2 ** 25;
/** Up to this many rows or columns the memory-bound kernels serve. */
const FEW = 8;
/** Below this many rows a tall product is too short to fill its workgroups. */
const TALL = 512;

/** Columns of a workgroup of `skinny` where its wide operand is float16: four to an invocation. */
const SKINNY_HALF_COLUMNS = 1024;

/** Rows and columns that a workgroup of each kernel computes, and its invocations. */
const TILES: Record<ProductKernel, { readonly rows: number; readonly columns: number; readonly invocations: number }> =
  {
    skinny: { rows: FEW, columns: 256, invocations: 256 },
    tall: { rows: 128, columns: FEW, invocations: 256 },
    large: { rows: 128, columns: 128, invocations: 256 },
    small: { rows: 64, columns: 64, invocations: 64 },
  };

/** Operands and contraction of a product. */
export interface Factors {
  readonly a: Operand;
  readonly b: Operand;
  readonly k: Contraction;
}

/** A kernel, the length of a chunk of the contraction, and how many chunks run at once. */
export interface ProductPlan {
  readonly kernel: ProductKernel;
  readonly chunk: number;
  readonly chunks: number;
}

/** Plans a product for a device. */
export function planProduct(factors: Factors, limits: GpuLimits): ProductPlan {
  const { a, b, k } = factors;
  const kernel = kernelFor(factors, limits);
  const parallel = limits.parallelWorkgroups * 256 / TILES[kernel].invocations;
  const wanted = Math.ceil(parallel / tilesOf(factors, kernel));
  const even = Math.ceil(k.length / wanted / CHUNK_UNIT) * CHUNK_UNIT;
  const chunk = Math.min(CHAIN, Math.max(SHORTEST_CHAIN, even));
  const held = Math.floor(Math.min(PARTIALS, regionLimit(limits)) / (a.count * b.count));
  return { kernel, chunk, chunks: Math.max(1, Math.min(wanted, held, Math.ceil(k.length / chunk))) };
}

function kernelFor({ a, b, k }: Factors, limits: GpuLimits): ProductKernel {
  const simple = k.inner >= k.length;
  const fours = b.unit === 0 || loadOf(b, k) === LOAD.alongX;
  if (a.count <= FEW && a.unit === 0 && b.innerStride === 1 && simple && fours) return "skinny";
  const columns = b.count <= FEW && b.unit === 0 && b.inner >= b.count;
  if (columns && a.count >= TALL && a.inner >= a.count && simple && loadOf(a, k) === LOAD.alongK) return "tall";
  // large tiles where they fill the device, cut or not; otherwise small ones, of which there are more
  const large = tilesOf({ a, b, k }, "large") * Math.ceil(k.length / (2 * SHORTEST_CHAIN));
  return a.count > 64 && b.count > 64 && large >= limits.parallelWorkgroups / 4 ? "large" : "small";
}

function tilesOf({ a, b }: Factors, kernel: ProductKernel): number {
  const { rows } = TILES[kernel];
  const columns = kernel === "skinny" && b.unit !== 0 ? SKINNY_HALF_COLUMNS : TILES[kernel].columns;
  return Math.ceil(a.count / rows) * Math.ceil(b.count / columns);
}
