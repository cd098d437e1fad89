/**
 * Float64 twins of the GPU kernels: the same index formulas in plain loops.
 *
 * @module
 */
import type { Contraction, Operand } from "../../src/gpu/operand.ts";

/** Where an operand's elements lie, without the buffer. */
export type Strides = Omit<Operand, "slice" | "unit">;

/** Index of element (x, k). */
export function indexOf(operand: Strides, x: number, k: number, kInner: number): number {
  const { base, inner, outerStride, innerStride, kOuterStride, kInnerStride } = operand;
  return base + Math.floor(x / inner) * outerStride + (x % inner) * innerStride +
    Math.floor(k / kInner) * kOuterStride + (k % kInner) * kInnerStride;
}

/** One element of a product: the sum over a range of k, and the scale on which its rounding error is judged. */
export function productTwin(
  operands: readonly [{ strides: Strides; data: Float32Array }, { strides: Strides; data: Float32Array }],
  [x, y]: readonly [number, number],
  { length, inner, start = 0 }: Contraction & { readonly start?: number },
): { readonly value: number; readonly scale: number } {
  const [a, b] = operands;
  let value = 0, left = 0, right = 0;
  for (let k = start; k < length; k++) {
    const p = a.data[indexOf(a.strides, x, k, inner)]!;
    const q = b.data[indexOf(b.strides, y, k, inner)]!;
    value += p * q;
    left += p * p;
    right += q * q;
  }
  return { value, scale: Math.sqrt(left * right) };
}

/** Throws unless a value is within some float32 roundings of its twin; NaN fails. */
export function assertTwin(actual: number, { value, scale }: { value: number; scale: number }, what: string): void {
  if (!(Math.abs(actual - value) <= 4e-6 * scale)) {
    throw new Error(`${what}: got ${actual}, the float64 twin says ${value} (scale ${scale})`);
  }
}

/** Σ of products, and the scale of its rounding. */
export function dot(terms: number, pair: (k: number) => readonly [number, number]): { value: number; scale: number } {
  let value = 0, left = 0, right = 0;
  for (let k = 0; k < terms; k++) {
    const [p, q] = pair(k);
    value += p * q;
    left += p * p;
    right += q * q;
  }
  return { value, scale: Math.sqrt(left * right) };
}
