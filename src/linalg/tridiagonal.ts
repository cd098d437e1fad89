/**
 * Symmetric tridiagonal matrices: reduction to them by Householder reflections (Golub & Van Loan, section 8.3) and their
 * eigenvalues by the implicit QL iteration (ibid.; EISPACK's imtql1).
 *
 * @module
 */
import { type RankTwoKernel, rankTwoKernel, ROUND } from "./rank_two_kernel.ts";

/** T = Qᵀ A Q with Q = H_0 H_1 … H_{n−2}, H_k = I − tau_k v_k v_kᵀ. */
export interface Tridiagonal {
  /** n numbers. */
  readonly diagonal: Float64Array;
  /** n numbers; entry i stands between i and i+1, the last is 0. */
  readonly offDiagonal: Float64Array;
  /** Row k holds v_k, which is 0 up to position k: n × n. */
  readonly reflectors: Float64Array;
  readonly taus: Float64Array;
}

/**
 * Reduces a symmetric n×n matrix (only its upper triangle is read). The rank-two update of a step and the product with the
 * next reflector run in one pass over the triangle, since that pass is bound by memory.
 */
export function tridiagonalise(matrix: Float64Array, n: number): Tridiagonal {
  const pass = new TrianglePass(matrix, n);
  const reflectors = new Float64Array(n * n);
  const taus = new Float64Array(n);
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n);
  const { v, w, x, product } = pass;
  for (let k = 0; k < n; k++) {
    const row = pass.row(k);
    for (let j = k; j < n; j++) row[j]! -= v[k]! * w[j]! + w[k]! * v[j]!;
    diagonal[k] = row[k]!;
    if (k === n - 1) break;
    x.fill(0);
    const { tau, beta } = householder(row, x, k + 1);
    reflectors.set(x, k * n);
    taus[k] = tau;
    offDiagonal[k] = beta;
    pass.updateAndMultiply(k + 1);
    let dot = 0;
    for (let j = k + 1; j < n; j++) dot += product[j]! * x[j]!;
    const shift = tau * dot / 2;
    w.fill(0);
    for (let j = k + 1; j < n; j++) w[j] = tau * (product[j]! - shift * x[j]!);
    v.set(x);
  }
  return { diagonal, offDiagonal, reflectors, taus };
}

/** The matrix and the vectors of a step, in the memory of the kernel that works on them. */
class TrianglePass {
  /** The pending update A − v wᵀ − w vᵀ. */
  readonly v: Float64Array;
  readonly w: Float64Array;
  /** The next reflector, and A x. */
  readonly x: Float64Array;
  readonly product: Float64Array;
  readonly #kernel: RankTwoKernel;

  constructor(matrix: Float64Array, readonly n: number) {
    this.#kernel = rankTwoKernel(n * n + 4 * n);
    const { memory } = this.#kernel;
    memory.set(matrix);
    const vector = (index: number): Float64Array => memory.subarray(n * (n + index), n * (n + index + 1));
    [this.v, this.w, this.x, this.product] = [vector(0), vector(1), vector(2), vector(3)];
  }

  row(index: number): Float64Array {
    return this.#kernel.memory.subarray(index * this.n, (index + 1) * this.n);
  }

  /** A ← A − v wᵀ − w vᵀ on the triangle behind `first`, and the product of the new A with x. */
  updateAndMultiply(first: number): void {
    const { n, v, w, x, product } = this;
    const { memory, row: wholeRounds } = this.#kernel;
    const vectors = 8 * n * n; // byte offset of v; w, x and the product follow
    product.fill(0);
    for (let i = first; i < n; i++) {
      const vi = v[i]!, wi = w[i]!, xi = x[i]!;
      const start = i + 1 + (n - i - 1) % ROUND;
      let sum = 0;
      for (let j = i; j < start; j++) { // the diagonal, and what doesn't fill a round
        const value = memory[i * n + j]! - vi * w[j]! - wi * v[j]!;
        memory[i * n + j] = value;
        sum += value * x[j]!;
        if (j > i) product[j]! += value * xi;
      }
      const a = 8 * (i * n + start);
      const rest = vectors + 8 * start;
      const bytes = 8 * (n - start);
      product[i]! += sum +
        wholeRounds(a, rest, rest + 8 * n, rest + 16 * n, rest + 24 * n, bytes, vi, wi, xi);
    }
  }
}

/** v, tau and beta with (I − tau v vᵀ) x = beta e_first for x = row[first…]; v[first] = 1. */
function householder(row: Float64Array, v: Float64Array, first: number): { tau: number; beta: number } {
  let largest = 0;
  for (let j = first; j < row.length; j++) largest = Math.max(largest, Math.abs(row[j]!));
  let tail = 0;
  for (let j = first + 1; j < row.length; j++) tail += (row[j]! / (largest || 1)) ** 2;
  const alpha = row[first]!;
  v[first] = 1;
  if (tail === 0) return { tau: 0, beta: alpha };
  const norm = largest * Math.sqrt((alpha / largest) ** 2 + tail);
  const beta = alpha > 0 ? -norm : norm;
  for (let j = first + 1; j < row.length; j++) v[j] = row[j]! / (alpha - beta);
  return { tau: (beta - alpha) / beta, beta };
}

/** Iterations for one eigenvalue; two or three are usual. */
const QL_LIMIT = 60;

/**
 * Eigenvalues of an unreduced symmetric tridiagonal matrix with entries of order 1, in no particular order.
 *
 * @throws {RangeError} if the iteration doesn't converge, which finite input doesn't cause.
 */
export function tridiagonalEigenvalues(diagonal: Float64Array, offDiagonal: Float64Array): Float64Array {
  const n = diagonal.length;
  const d = diagonal.slice();
  const e = offDiagonal.slice();
  e[n - 1] = 0;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0;; iteration++) {
      let m = l;
      for (; m < n - 1; m++) {
        const scale = Math.abs(d[m]!) + Math.abs(d[m + 1]!);
        if (Math.abs(e[m]!) <= Number.EPSILON * scale) break;
      }
      if (m === l) break;
      if (iteration === QL_LIMIT) throw new RangeError(`eigenvalue ${l} of ${n} didn't converge`);
      qlStep(d, e, l, m);
    }
  }
  return d;
}

/** One implicit QL step with Wilkinson's shift on rows l…m. */
function qlStep(d: Float64Array, e: Float64Array, l: number, m: number): void {
  let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
  let r = Math.sqrt(g * g + 1);
  g = d[m]! - d[l]! + e[l]! / (g + (g < 0 ? -r : r));
  let [s, c, p] = [1, 1, 0];
  for (let i = m - 1; i >= l; i--) {
    const f = s * e[i]!;
    const b = c * e[i]!;
    r = Math.sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r === 0) { // underflow: the matrix splits here
      d[i + 1]! -= p;
      e[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1]! - p;
    r = (d[i]! - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
  }
  d[l]! -= p;
  e[l] = g;
  e[m] = 0;
}
