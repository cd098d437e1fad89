/**
 * Views of bound regions as operands of the strided matrix product.
 *
 * @module
 */
import { LOAD } from "../../kernels/mod.ts";
import type { BufferSlice } from "./dispatch.ts";

/**
 * One operand: element (x, k) lies at base + (x / inner)·outerStride + (x % inner)·innerStride
 * + (k / kInner)·kOuterStride + (k % kInner)·kInnerStride of the slice.
 */
export interface Operand {
  readonly slice: BufferSlice;
  /** 0 where the slice holds float32 numbers, else what its float16 numbers are multiplied by. */
  readonly unit: number;
  readonly base: number;
  /** Number of x. */
  readonly count: number;
  readonly inner: number;
  readonly outerStride: number;
  readonly innerStride: number;
  readonly kOuterStride: number;
  readonly kInnerStride: number;
}

/** How the contraction index runs: `length` values, in runs of `inner` for strides of their own. */
export interface Contraction {
  readonly length: number;
  readonly inner: number;
}

/**
 * The widest way in which 4×4 blocks of an operand can be loaded: blocks start at multiples of 4 of x and of k, and a
 * vector needs an aligned address and four neighbours that all exist.
 */
export function loadOf(operand: Operand, k: Contraction): number {
  const { base, count, inner, outerStride, innerStride, kOuterStride, kInnerStride } = operand;
  const split = inner < count;
  const splitK = k.inner < k.length;
  const aligned = (...strides: number[]): boolean => strides.every((stride) => stride % 4 === 0);
  const wholeRuns = !splitK || k.inner % 4 === 0; // four k of a block share a run
  const alongX = innerStride === 1 && count % 4 === 0 && (!split || inner % 4 === 0) && wholeRuns &&
    aligned(base, split ? outerStride : 0, splitK ? kOuterStride : 0, kInnerStride);
  if (alongX) return LOAD.alongX;
  const alongK = kInnerStride === 1 && k.length % 4 === 0 && wholeRuns &&
    aligned(base, split ? outerStride : 0, inner > 1 ? innerStride : 0, splitK ? kOuterStride : 0);
  return alongK ? LOAD.alongK : LOAD.scalar;
}

/** The numbers of an operand that the kernel takes. */
export type OperandFields = Omit<Operand, "slice" | "unit"> & { readonly load: number };

const bits = new DataView(new ArrayBuffer(4));

/** A number as a kernel's parameter: the bits of a float32. */
export function float32Bits(value: number): number {
  bits.setFloat32(0, value);
  return bits.getUint32(0);
}

/** Them as the kernel's parameters `a.…` or `b.…`. */
export function operandParams<N extends "a" | "b">(
  name: N,
  operand: OperandFields,
): Record<`${N}.${keyof OperandFields}`, number> {
  const { base, count, inner, outerStride, innerStride, kOuterStride, kInnerStride, load } = operand;
  const fields = { base, count, inner, outerStride, innerStride, kOuterStride, kInnerStride, load };
  return Object.fromEntries(
    Object.entries(fields).map(([field, value]) => [`${name}.${field}`, value]),
  ) as Record<`${N}.${keyof OperandFields}`, number>;
}
