/**
 * What the algorithms compute with: the operations of a backend, float64 arrays on the host side, and the accuracy that
 * can be expected of them.
 *
 * @module
 */
import type { FloatArray } from "../linalg/mod.ts";
import { createFloat64Ops } from "./cpu_ops.ts";
import { release } from "../release.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";

/** Tensor operations with float64 factors on the host. */
export interface TensorEngine extends Pick<TuckerOps, "modeProduct" | "gram" | "matmul" | "reshape" | "filterStep"> {
  /** The type of array to hand over without a conversion. */
  readonly Array: new (length: number) => FloatArray;
  /** Copies host data in, rounding to the precision of the backend. */
  upload(data: FloatArray, shape: readonly number[]): OpsTensor;
  /**
   * Takes weights over: nobody else may hold the array, which may be gone at once. They are kept in a smaller format where the backend
   * has one that loses nothing (see `TuckerOps.weights`), and without a copy where numbers stay on the host.
   */
  uploadWeights(data: FloatArray, shape: readonly number[], unit: number): Promise<OpsTensor>;
  /** Copies a tensor out. */
  download(tensor: OpsTensor): Promise<Float64Array>;
  /** Copies a tensor out in float32. */
  read(tensor: OpsTensor): Promise<Float32Array>;
  /** Relative rounding error of a sum of squares: smaller changes mean nothing. */
  readonly roundoff: number;
  /** Change of the relative error that may be left when sweeps stop, unless the caller says otherwise. */
  readonly tolerance: number;
  /** Is the tensor so large that large factors are improved from sweep to sweep instead of solved for exactly in each? */
  readonly large: boolean;
}

/**
 * Tensors of at most this many numbers are decomposed in float64 on the CPU: small models' outputs show the last digits of
 * a subspace, and float64 costs them little.
 */
const FLOAT64_LIMIT = 1 << 19;
/** Toy models: their sweeps take a millisecond, so they run until nothing moves. */
const TOY_LIMIT = 1 << 16;

/**
 * Change of the relative error that may be left to gain when sweeps stop (`convergence.ts`). Weights of 768×64×4×12 and more are
 * swept until they are, as far as it can be foreseen, within 1e-4 of the limit. Trained weights are there after two or three sweeps; of random
 * ones, whose subspaces are hardly determined at all, many more end up to 3e-4 lower.
 */
const TOLERANCES = { toy: 1e-12, small: 4e-7, large: 8e-5 } as const;

/** The engine for a tensor of `count` numbers on a backend; float64 where that is cheap and the backend is the CPU. */
export function engineFor(ops: TuckerOps, count: number): TensorEngine {
  const tolerance = count > FLOAT64_LIMIT ? TOLERANCES.large : count > TOY_LIMIT ? TOLERANCES.small : TOLERANCES.toy;
  return ops.backend !== "cpu" || count > FLOAT64_LIMIT
    ? float32Engine(ops, {
      tolerance,
      roundoff: count > FLOAT64_LIMIT ? ROUNDOFFS.large : ROUNDOFFS.small,
      large: count > FLOAT64_LIMIT,
    })
    : float64Engine({ tolerance, roundoff: ROUNDOFFS.float64, large: false });
}

/** Rounding of a squared norm: float32 sums of many numbers, of few, and float64's. */
const ROUNDOFFS = { large: 2e-7, small: 1e-9, float64: 1e-15 } as const;

type Accuracy = Pick<TensorEngine, "tolerance" | "roundoff" | "large">;

function float32Engine(ops: TuckerOps, accuracy: Accuracy): TensorEngine {
  const float32 = (data: FloatArray): Float32Array => data instanceof Float32Array ? data : new Float32Array(data);
  return {
    ...bound(ops),
    ...accuracy,
    Array: Float32Array,
    upload: (data, shape) => ops.tensor(float32(data), shape),
    uploadWeights: async (data, shape, unit) => {
      const numbers = float32(data);
      const small = await ops.weights?.(numbers, shape, unit);
      if (small === undefined) return ops.adopt(numbers, shape);
      release(numbers);
      return small;
    },
    download: async (tensor) => new Float64Array(await ops.read(tensor)),
    read: (tensor) => ops.read(tensor),
    ...(ops.filterStep === undefined ? {} : { filterStep: (matrix, step) => ops.filterStep!(matrix, step) }),
  };
}

function float64Engine(accuracy: Accuracy): TensorEngine {
  const ops = createFloat64Ops();
  const upload = (data: FloatArray, shape: readonly number[]): OpsTensor =>
    ops.tensor(data instanceof Float64Array ? data : new Float64Array(data), shape);
  return {
    ...bound(ops),
    ...accuracy,
    Array: Float64Array,
    upload,
    uploadWeights: (data, shape) =>
      Promise.resolve(ops.adopt(data instanceof Float64Array ? data : new Float64Array(data), shape)),
    download: (tensor) => ops.read(tensor),
    read: async (tensor) => new Float32Array(await ops.read(tensor)),
  };
}

type Shared = Pick<TensorEngine, "modeProduct" | "gram" | "matmul" | "reshape">;

function bound(ops: Shared): Shared {
  return {
    modeProduct: (tensor, mode, matrix) => ops.modeProduct(tensor, mode, matrix),
    gram: (tensor, mode) => ops.gram(tensor, mode),
    matmul: (a, b, options) => ops.matmul(a, b, options),
    reshape: (tensor, shape) => ops.reshape(tensor, shape),
  };
}
