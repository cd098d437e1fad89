/**
 * Kernels of the matrix product, for float32 operands and for float16 ones.
 *
 * @module
 */
import { kernel, tiles } from "./kernel.ts";
import matmulSource from "./matmul.wgsl" with { type: "text" };
import matmulHalfSource from "./matmul_half.wgsl" with { type: "text" };
import matmulSkinnySource from "./matmul_skinny.wgsl" with { type: "text" };
import matmulSkinnyHalfSource from "./matmul_skinny_half.wgsl" with { type: "text" };
import matmulTallSource from "./matmul_tall.wgsl" with { type: "text" };
import matmulTallHalfSource from "./matmul_tall_half.wgsl" with { type: "text" };
import sumPartialsSource from "./sum_partials.wgsl" with { type: "text" };

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

/** Parameters of `matmul` that don't belong to an operand. */
const PRODUCT = [
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
] as const;

const FACTORS = [{ name: "a", access: "read" }, { name: "b", access: "read" }, {
  name: "out",
  access: "read-write",
}] as const;

/** Ways in which `matmul` reads an operand; see its header. */
export const LOAD = { scalar: 0, alongX: 1, alongK: 2 } as const;

/** Strided, chunked matrix product of any size: `out[x, y] (+)= Σ_k a[x, k] b[y, k]`. */
export const matmul = kernel({
  name: "matmul",
  source: matmulSource,
  entryPoint: "main",
  bindings: FACTORS,
  overrides: { T: 16 },
  params: [
    ...OPERAND.map((field) => `a.${field}` as const),
    ...OPERAND.map((field) => `b.${field}` as const),
    ...PRODUCT,
  ],
  workgroups: (params, { T = 16 }) => tiles(params["a.count"], 8 * T) * tiles(params["b.count"], 8 * T) * params.chunks,
});

/** The same with float16 operands: one or both; the unit of an operand is 0 where it is float32. */
export const matmulHalf = kernel({
  name: "matmul_half",
  source: matmulHalfSource,
  entryPoint: "main",
  bindings: FACTORS,
  overrides: { T: 16 },
  params: [
    ...OPERAND.map((field) => `a.${field}` as const),
    ...OPERAND.map((field) => `b.${field}` as const),
    ...PRODUCT,
    "aUnit",
    "bUnit",
  ],
  workgroups: matmul.workgroups,
});

/** Strided, chunked matrix product with at most 8 rows: memory-bound. */
export const matmulSkinny = kernel({
  name: "matmul_skinny",
  source: matmulSkinnySource,
  entryPoint: "main",
  bindings: FACTORS,
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

/** The same where b is float16, its columns four by four. */
export const matmulSkinnyHalf = kernel({
  name: "matmul_skinny_half",
  source: matmulSkinnyHalfSource,
  entryPoint: "main",
  bindings: FACTORS,
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
    "bK",
    "outBase",
    "outChunk",
    "outX",
    "outOuterStride",
    "outInnerStride",
    "accumulate",
    "unit",
  ],
  workgroups: ({ y, chunks }) => tiles(y, 1024) * chunks,
});

/** Strided, chunked matrix product with at most 8 columns and contiguous rows of a: memory-bound. */
export const matmulTall = kernel({
  name: "matmul_tall",
  source: matmulTallSource,
  entryPoint: "main",
  bindings: FACTORS,
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

/** The same where a is float16. */
export const matmulTallHalf = kernel({
  name: "matmul_tall_half",
  source: matmulTallHalfSource,
  entryPoint: "main",
  bindings: FACTORS,
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
    "unit",
  ],
  workgroups: ({ x, chunks }) => tiles(x, 128) * chunks,
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
