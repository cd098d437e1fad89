/**
 * Every compute kernel as a plain record: source, bindings, parameters and grid. The WGSL headers hold the mathematics.
 *
 * @module
 */
import { type Kernel, kernel, tiles } from "./kernel.ts";
import gramSmallSource from "./gram_small.wgsl" with { type: "text" };
import gramSmallHalfSource from "./gram_small_half.wgsl" with { type: "text" };
import halfSumsSource from "./half_sums.wgsl" with { type: "text" };
import halfTensorSource from "./half_tensor.wgsl" with { type: "text" };
import narrowHalfSource from "./narrow_half.wgsl" with { type: "text" };
import {
  matmul,
  matmulHalf,
  matmulSkinny,
  matmulSkinnyHalf,
  matmulTall,
  matmulTallHalf,
  sumPartials,
} from "./products.ts";

export type { Access, Kernel, KernelBinding } from "./kernel.ts";
export * from "./products.ts";

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

/** The same of float16 rows, four columns at a time. */
export const gramSmallHalf = kernel({
  name: "gram_small_half",
  source: gramSmallHalfSource,
  entryPoint: "main",
  bindings: [{ name: "t", access: "read" }, { name: "partial", access: "read-write" }],
  overrides: {},
  params: ["n", "count", "inner", "base", "rowStride", "outerStride", "groups", "unit"],
  workgroups: ({ groups }) => groups,
});

/** Stores float32 numbers as float16 and measures what that loses. */
export const narrowHalf = kernel({
  name: "narrow_half",
  source: narrowHalfSource,
  entryPoint: "main",
  bindings: [
    { name: "source", access: "read" },
    { name: "half", access: "read-write" },
    { name: "partial", access: "read-write" },
  ],
  overrides: {},
  params: ["count", "first", "unit", "inverse", "groups"],
  workgroups: ({ groups }) => groups,
});

/** Sums of squares of 16-bit numbers by their exponents, without rounding. */
export const halfSums = kernel({
  name: "half_sums",
  source: halfSumsSource,
  entryPoint: "main",
  bindings: [
    { name: "source", access: "read" },
    { name: "index", access: "read" },
    { name: "bins", access: "read-write" },
  ],
  overrides: {},
  params: ["slow", "fast", "slowStride", "fastStride", "indexed", "indexBase", "fractionBits", "binBase", "groups"],
  workgroups: ({ groups }) => groups,
});

/** 16-bit numbers to their places in a tensor of float16 (HALF = 1) or float32 (HALF = 0) numbers. */
export const halfTensor = kernel({
  name: "half_tensor",
  source: halfTensorSource,
  entryPoint: "main",
  bindings: [
    { name: "source", access: "read" },
    { name: "index", access: "read" },
    { name: "out", access: "read-write" },
  ],
  overrides: { HALF: 1 },
  params: [
    "rows",
    "width",
    "firstRow",
    "rowStride",
    "columnStride",
    "indexed",
    "indexBase",
    "fractionBits",
    "outBase",
    "outStride",
    "scale",
    "factorHigh",
    "factorLow",
  ],
  workgroups: ({ rows, width }) => tiles(rows, 32) * tiles(width, 64),
});

/** All kernels, for tests that go through them. */
export const KERNELS: readonly Kernel[] = [
  matmul,
  matmulHalf,
  matmulSkinny,
  matmulSkinnyHalf,
  matmulTall,
  matmulTallHalf,
  gramSmall,
  gramSmallHalf,
  narrowHalf,
  halfSums,
  halfTensor,
  sumPartials,
] as readonly Kernel[];
