/**
 * Gram matrices on the CPU. float32 sums are cut where they get long, and the pieces added in float64.
 *
 * @module
 */
import { addDots, type FloatArray, matmul } from "../linalg/mod.ts";
import { release } from "../release.ts";

/** A tensor seen from one mode: how many numbers lie before, in and behind it. */
export interface ModeSizes {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
}

/** Longest sum that is left to float32: longer ones are cut, and the pieces added in float64. */
const SUM_LENGTH = 1024;
/** Numbers of partial Gram matrices that are held at once. */
const PARTIAL_GRAMS = 1 << 24;
/** Up to this size a Gram matrix is memory-bound, and plain float64 loops over the data are as fast as a product. */
const SMALL_GRAM = 8;

/** Gram matrix of a tensor's unfolding in one mode, symmetric to the last bit. */
export async function modeGram<T extends FloatArray>(data: T, sizes: ModeSizes): Promise<Float64Array> {
  if (sizes.length <= SMALL_GRAM) return smallGram(data, sizes);
  const gram = sizes.inner === 1 ? await gramOfColumns(data, sizes) : await gramOfRows(data, sizes);
  return symmetrised(gram, sizes.length);
}

/** Gram matrix of few rows: dot products in float64. */
function smallGram(data: FloatArray, { outer, length, inner }: ModeSizes): Float64Array {
  const gram = new Float64Array(length * length);
  for (let o = 0; o < outer; o++) {
    const start = o * length * inner;
    const row = (j: number): FloatArray => data.subarray(start + j * inner, start + (j + 1) * inner);
    addDots(gram, Array.from({ length }, (_, j) => row(j)));
  }
  return gram;
}

/** AᵀA of an outer×length matrix, cut along its rows. */
async function gramOfColumns<T extends FloatArray>(data: T, { outer, length }: ModeSizes): Promise<Float64Array> {
  const gram = new Float64Array(length * length);
  const group = Math.max(1, Math.floor(PARTIAL_GRAMS / length ** 2));
  for (let row = 0; row < outer;) {
    const k = Math.min(SUM_LENGTH, outer - row);
    const batch = k === SUM_LENGTH ? Math.min(group, Math.floor((outer - row) / SUM_LENGTH)) : 1;
    const part = data.subarray(row * length, (row + batch * k) * length) as T;
    addPieces(gram, await matmul(part, part, { m: length, k, n: length, batch, transposeA: true }));
    row += batch * k;
  }
  return gram;
}

/** Sum of A Aᵀ over `outer` matrices of length×inner, cut along their columns. */
async function gramOfRows<T extends FloatArray>(data: T, { outer, length, inner }: ModeSizes): Promise<Float64Array> {
  const gram = new Float64Array(length * length);
  const group = Math.max(1, Math.floor(PARTIAL_GRAMS / length ** 2));
  for (let start = 0; start < inner; start += SUM_LENGTH) {
    const k = Math.min(SUM_LENGTH, inner - start);
    for (let o = 0; o < outer; o += group) {
      const batch = Math.min(group, outer - o);
      const whole = data.subarray(o * length * inner, (o + batch) * length * inner) as T;
      const part = k === inner ? whole : columnsOf(whole, inner, start, k);
      addPieces(gram, await matmul(part, part, { m: length, k, n: length, batch, transposeB: true }));
      if (part !== whole) release(part);
    }
  }
  return gram;
}

/** Columns start..start+count of a matrix with `width` columns. */
function columnsOf<T extends FloatArray>(matrix: T, width: number, start: number, count: number): T {
  const rows = matrix.length / width;
  const part = new (matrix.constructor as new (source: number) => T)(rows * count);
  for (let row = 0; row < rows; row++) {
    part.set(matrix.subarray(row * width + start, row * width + start + count), row * count);
  }
  return part;
}

/** Adds all matrices of a batch to `sum`, and releases them. */
function addPieces(sum: Float64Array, pieces: FloatArray): void {
  for (let start = 0; start < pieces.length; start += sum.length) {
    for (let i = 0; i < sum.length; i++) sum[i]! += pieces[start + i]!;
  }
  release(pieces);
}

function symmetrised(matrix: Float64Array, n: number): Float64Array {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const mean = (matrix[i * n + j]! + matrix[j * n + i]!) / 2;
      matrix[i * n + j] = mean;
      matrix[j * n + i] = mean;
    }
  }
  return matrix;
}
