/**
 * Dot products of a few long rows by plain loops: bound by memory, and as fast as a matrix product of such a shape.
 *
 * @module
 */
import type { FloatArray } from "./matmul.ts";

/**
 * Adds the dot products of all pairs of n equally long rows, in float64.
 *
 * @param gram n × n, symmetric
 */
export function addDots(gram: Float64Array, rows: readonly FloatArray[]): void {
  if (rows.length === 4) return addDotsOfFour(gram, rows as [FloatArray, FloatArray, FloatArray, FloatArray]);
  const n = rows.length;
  for (let j = 0; j < n; j++) {
    for (let k = j; k < n; k++) {
      const sum = dot(rows[j]!, rows[k]!);
      gram[j * n + k]! += sum;
      if (k > j) gram[k * n + j]! += sum;
    }
  }
}

function dot(left: FloatArray, right: FloatArray): number {
  let even = 0, odd = 0; // two sums: the additions overlap
  let i = 1;
  for (; i < left.length; i += 2) {
    even += left[i - 1]! * right[i - 1]!;
    odd += left[i]! * right[i]!;
  }
  if (i === left.length) even += left[i - 1]! * right[i - 1]!;
  return even + odd;
}

/** Four rows, as a layer has projections: all ten products in one pass. */
function addDotsOfFour(gram: Float64Array, rows: readonly [FloatArray, FloatArray, FloatArray, FloatArray]): void {
  const [first, second, third, fourth] = rows;
  let [aa, ab, ac, ad, bb, bc, bd, cc, cd, dd] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < first.length; i++) {
    const a = first[i]!, b = second[i]!, c = third[i]!, d = fourth[i]!;
    aa += a * a;
    ab += a * b;
    ac += a * c;
    ad += a * d;
    bb += b * b;
    bc += b * c;
    bd += b * d;
    cc += c * c;
    cd += c * d;
    dd += d * d;
  }
  [aa, ab, ac, ad, ab, bb, bc, bd, ac, bc, cc, cd, ad, bd, cd, dd].forEach((sum, index) => gram[index]! += sum);
}
