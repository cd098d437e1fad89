/**
 * Symmetric tridiagonal matrices: reduction to them by Householder reflections (Golub & Van Loan, section 8.3) and their
 * eigenvalues by the implicit QL iteration (ibid.; EISPACK's imtql1).
 *
 * @module
 */

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
  const a = matrix.slice(); // overwritten
  const reflectors = new Float64Array(n * n);
  const taus = new Float64Array(n);
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n);
  let v: Float64Array = new Float64Array(n);
  let w: Float64Array = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    const row = a.subarray(k * n, (k + 1) * n);
    for (let j = k; j < n; j++) row[j]! -= v[k]! * w[j]! + w[k]! * v[j]!;
    diagonal[k] = row[k]!;
    if (k === n - 1) break;
    const next = reflectors.subarray(k * n, (k + 1) * n);
    const { tau, beta } = householder(row, next, k + 1);
    taus[k] = tau;
    offDiagonal[k] = beta;
    const product = updateAndMultiply(a, n, { first: k + 1, v, w, x: next });
    let dot = 0;
    for (let j = k + 1; j < n; j++) dot += product[j]! * next[j]!;
    const shift = tau * dot / 2;
    for (let j = k + 1; j < n; j++) product[j] = tau * (product[j]! - shift * next[j]!);
    v = next;
    w = product;
  }
  return { diagonal, offDiagonal, reflectors, taus };
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

interface Pass {
  readonly first: number;
  readonly v: Float64Array;
  readonly w: Float64Array;
  readonly x: Float64Array;
}

/** A ← A − v wᵀ − w vᵀ on the triangle behind `first`, and A x of the new A. */
function updateAndMultiply(a: Float64Array, n: number, { first, v, w, x }: Pass): Float64Array {
  const product = new Float64Array(n);
  for (let i = first; i < n; i++) {
    const row = a.subarray(i * n, (i + 1) * n);
    const vi = v[i]!, wi = w[i]!, xi = x[i]!;
    const corner = row[i]! - 2 * vi * wi;
    row[i] = corner;
    let sum = corner * xi;
    for (let j = i + 1; j < n; j++) {
      const value = row[j]! - vi * w[j]! - wi * v[j]!;
      row[j] = value;
      sum += value * x[j]!;
      product[j]! += value * xi;
    }
    product[i]! += sum;
  }
  return product;
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
