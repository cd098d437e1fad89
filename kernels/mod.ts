/**
 * Every compute kernel as a plain record: source, bindings, parameters and grid. The WGSL headers hold the mathematics.
 *
 * @module
 */
import gramSmallSource from "./gram_small.wgsl" with { type: "text" };
import matmulSource from "./matmul.wgsl" with { type: "text" };
import matmulSkinnySource from "./matmul_skinny.wgsl" with { type: "text" };
import matmulTallSource from "./matmul_tall.wgsl" with { type: "text" };
import sumPartialsSource from "./sum_partials.wgsl" with { type: "text" };

/** How a kernel uses a storage buffer. */
export type Access = "read" | "read-write";

/** One storage buffer of a kernel. */
export interface KernelBinding {
  /** Its name in the WGSL source. */
  readonly name: string;
  readonly access: Access;
}

/**
 * A kernel. Binding 0 is always the uniform `Params`; the storage buffers follow in the order of `bindings`.
 *
 * @typeParam P names of the parameters
 */
export interface Kernel<P extends string = string> {
  /** First part of every label of its pipelines. */
  readonly name: string;
  /** WGSL, whole. */
  readonly source: string;
  readonly entryPoint: string;
  readonly bindings: readonly KernelBinding[];
  /** Pipeline-overridable constants with the values that the WGSL gives them. */
  readonly overrides: Readonly<Record<string, number>>;
  /** Fields of `Params` in order, all u32; the fields of a nested struct are `field.member`. */
  readonly params: readonly P[];
  /** Number of workgroups for given parameters and overrides. */
  readonly workgroups: (params: Readonly<Record<P, number>>, overrides: Readonly<Record<string, number>>) => number;
}

/** Lets the parameter names be inferred from the list. */
function kernel<const P extends string>(record: Kernel<P>): Kernel<P> {
  return record;
}

const tiles = (count: number, size: number): number => Math.ceil(count / size);

const OPERAND = [
  "base",
  "count",
  "inner",
  "outerStride",
  "innerStride",
  "kOuterStride",
  "kInnerStride",
  "load",
] as const;

/** Ways in which `matmul` reads an operand; see its header. */
export const LOAD = { scalar: 0, alongX: 1, alongK: 2 } as const;

/** Strided, chunked matrix product of any size: `out[x, y] (+)= Σ_k a[x, k] b[y, k]`. */
export const matmul = kernel({
  name: "matmul",
  source: matmulSource,
  entryPoint: "main",
  bindings: [{ name: "a", access: "read" }, { name: "b", access: "read" }, { name: "out", access: "read-write" }],
  overrides: { T: 16 },
  params: [
    ...OPERAND.map((field) => `a.${field}` as const),
    ...OPERAND.map((field) => `b.${field}` as const),
    "k",
    "kStart",
    "kInner",
    "chunk",
    "chunks",
    "outBase",
    "outX",
    "outOuterStride",
    "outInnerStride",
    "outChunk",
    "accumulate",
    "upperOnly",
  ],
  workgroups: (params, { T = 16 }) => tiles(params["a.count"], 8 * T) * tiles(params["b.count"], 8 * T) * params.chunks,
});

/** Strided, chunked matrix product with at most 8 rows: memory-bound. */
export const matmulSkinny = kernel({
  name: "matmul_skinny",
  source: matmulSkinnySource,
  entryPoint: "main",
  bindings: [{ name: "a", access: "read" }, { name: "b", access: "read" }, { name: "out", access: "read-write" }],
  overrides: {},
  params: [
    "x",
    "y",
    "k",
    "kStart",
    "chunk",
    "chunks",
    "inner",
    "aBase",
    "aX",
    "aK",
    "bBase",
    "bOuterStride",
    "bInnerStride",
    "bK",
    "outBase",
    "outChunk",
    "outX",
    "outOuterStride",
    "outInnerStride",
    "accumulate",
  ],
  workgroups: ({ y, chunks }) => tiles(y, 256) * chunks,
});

/** Strided, chunked matrix product with at most 8 columns and contiguous rows of a: memory-bound. */
export const matmulTall = kernel({
  name: "matmul_tall",
  source: matmulTallSource,
  entryPoint: "main",
  bindings: [{ name: "a", access: "read" }, { name: "b", access: "read" }, { name: "out", access: "read-write" }],
  overrides: {},
  params: [
    "x",
    "y",
    "k",
    "kStart",
    "chunk",
    "chunks",
    "aBase",
    "aX",
    "bBase",
    "bY",
    "bK",
    "outBase",
    "outChunk",
    "outX",
    "outY",
    "accumulate",
  ],
  workgroups: ({ x, chunks }) => tiles(x, 128) * chunks,
});

/** Gram matrix of at most four rows, one partial 4×4 matrix per workgroup. */
export const gramSmall = kernel({
  name: "gram_small",
  source: gramSmallSource,
  entryPoint: "main",
  bindings: [{ name: "t", access: "read" }, { name: "partial", access: "read-write" }],
  overrides: {},
  params: ["n", "count", "inner", "base", "rowStride", "outerStride", "innerStride", "groups"],
  workgroups: ({ groups }) => groups,
});

/** Adds partial products, in one group or several. */
export const sumPartials = kernel({
  name: "sum_partials",
  source: sumPartialsSource,
  entryPoint: "main",
  bindings: [{ name: "partial", access: "read" }, { name: "out", access: "read-write" }],
  overrides: {},
  params: [
    "x",
    "y",
    "inner",
    "chunks",
    "perGroup",
    "groups",
    "outBase",
    "outGroup",
    "outX",
    "outOuterStride",
    "outInnerStride",
    "accumulate",
  ],
  workgroups: ({ x, y, groups }) => tiles(x * y, 256) * groups,
});

/** All kernels, for tests that go through them. */
export const KERNELS: readonly Kernel[] = [
  matmul,
  matmulSkinny,
  matmulTall,
  gramSmall,
  sumPartials,
] as readonly Kernel[];
