/**
 * Every compute kernel as a plain record: source, bindings, parameters and grid. The WGSL headers hold the mathematics.
 *
 * @module
 */
import { type Kernel, kernel } from "./kernel.ts";
import gramSmallSource from "./gram_small.wgsl" with { type: "text" };
import gramSmallHalfSource from "./gram_small_half.wgsl" with { type: "text" };
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
  sumPartials,
] as readonly Kernel[];
