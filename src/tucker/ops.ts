/**
 * The tensor operations that a decomposition needs, with two implementations that pass one contract suite: `cpu_ops.ts`
 * and `gpu_ops.ts`. Everything is float32, row-major; sums are long, so implementations accumulate as carefully as they
 * can (the contract states the tolerance). Operations may be queued: an error surfaces at the next await.
 *
 * @module
 */
import type { HalfMatrix } from "../attention/types.ts";

/** A tensor that lives where the operations run (host memory or GPU buffers). Dispose it to free the memory. */
export interface OpsTensor extends Disposable {
  readonly shape: readonly number[];
}

/** Matrices of 16-bit weights that are where they are computed with. Dispose them to free the memory. */
export interface HalfWeights extends Disposable {
  /** Σ w² of each matrix in float64, exact but for its last digits; NaN where a number isn't finite. */
  readonly squares: readonly number[];
  /**
   * The d×S×H×h tensor of some of the matrices, each multiplied by a factor, as `weights` would store it: bit for bit what it makes of
   * the same numbers.
   *
   * @param shape with S = `placed.length`
   */
  tensor(
    placed: readonly { readonly matrix: number; readonly factor: number }[],
    shape: readonly [number, number, number, number],
  ): OpsTensor;
}

/** The operations of one backend. Dispose it to free the device. */
export interface TuckerOps extends Disposable {
  readonly backend: "webgpu" | "cpu";
  /** What really runs: adapter description for WebGPU, the library for the CPU. Goes into the report. */
  readonly adapter: string;

  /** The same operations for one piece of work among several: `adapter` tells about its weights alone. The device isn't its own. */
  view?(): TuckerOps;

  /** Copies host data in. The caller may reuse `data` afterwards. */
  tensor(data: Float32Array, shape: readonly number[]): OpsTensor;

  /** Takes host data over: it belongs to the tensor, and its memory is given back as soon as the tensor doesn't need it. */
  adopt(data: Float32Array, shape: readonly number[]): OpsTensor;

  /**
   * Copies weights of norm at most 1 in, in the smallest format that loses nothing of them; where it is missing, `tensor`
   * serves. `adapter` says what was chosen, from then until the next weights.
   *
   * @param unit a factor that all of the numbers were multiplied by after they were read from a model; NaN where there is none
   */
  weights?(data: Float32Array, shape: readonly number[], unit: number): Promise<OpsTensor>;

  /**
   * Takes weights where they are computed with as their file stores them; undefined where numbers serve better, or these don't fit. The
   * matrices are given as they lie in the tensor, d × (H·h).
   */
  halves?(matrices: readonly HalfMatrix[]): Promise<HalfWeights> | undefined;

  /** Bytes that were copied in so far, where that means that they crossed a bus. */
  readonly uploadedBytes?: number;

  /** Copies a tensor out. */
  read(tensor: OpsTensor): Promise<Float32Array>;

  /** The same numbers under another shape of equal size; shares memory, needs no dispose of its own. */
  reshape(tensor: OpsTensor, shape: readonly number[]): OpsTensor;

  /**
   * T ×_mode Mᵀ: contracts mode `mode` (size n) of the tensor with the rows of `matrix` (n × r); that mode's size becomes r.
   * out[o, j, i] = Σ_k matrix[k, j] · T[o, k, i], with o over the modes before and i over the modes behind.
   */
  modeProduct(tensor: OpsTensor, mode: number, matrix: OpsTensor): OpsTensor;

  /**
   * Gram matrix of the mode-`mode` unfolding, n × n: out[j, k] = Σ_{o,i} T[o, j, i] · T[o, k, i], on the host in float64
   * (symmetric to the last bit).
   */
  gram(tensor: OpsTensor, mode: number): Promise<Float64Array>;

  /** Product of two matrices: op(a) @ op(b), where op transposes on request. */
  matmul(
    a: OpsTensor,
    b: OpsTensor,
    options?: { readonly transposeA?: boolean; readonly transposeB?: boolean },
  ): OpsTensor;

  /**
   * One step of a Chebyshev filter, 2 (s·A Aᵀ X − X) − P, with A (m × n) and host blocks X and P (m × any); of Aᵀ A where `across` is
   * set (n × any). Where it is missing, products and plain loops serve.
   */
  filterStep?(matrix: OpsTensor, step: FilterStep): Promise<Float32Array>;
}

/** What a step of a filter takes, besides the matrix. */
export interface FilterStep {
  /** X, and P, the block before it. */
  readonly current: Float32Array;
  readonly before: Float32Array;
  /** s. */
  readonly scale: number;
  /** Aᵀ A instead of A Aᵀ. */
  readonly across: boolean;
}
