/**
 * Matrix products on the CPU: ONNX Runtime's MatMul kernels (MLAS, vectorised and threaded) in float32 and float64, plain
 * loops where the call would cost more than the product. All arrays are row-major.
 *
 * @module
 */
import { InferenceSession, Tensor } from "../onnx_runtime.ts";
import { type ElementType, productModel } from "./product_model.ts";
import { availableThreads } from "../machine.ts";

/** Float arrays that a product takes; both operands have the same type, and so has the result. */
export type FloatArray = Float32Array | Float64Array;

/** Sizes of a product op(a) m×k times op(b) k×n, and how the operands are stored. */
export interface ProductShape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** `a` is stored k×m. */
  readonly transposeA?: boolean;
  /** `b` is stored n×k. */
  readonly transposeB?: boolean;
  /** Number of products in a row; 1 by default. An operand that holds only one matrix is used in all of them. */
  readonly batch?: number;
}

/** Below this many multiplications a call of ONNX Runtime (tens of microseconds) costs more than plain loops. */
const PLAIN_LIMIT = 1 << 14;

let sessions: Map<string, Promise<InferenceSession>> | undefined;

/**
 * op(a) @ op(b), in the precision of the operands. float32 sums over k are float32 sums.
 *
 * @throws {RangeError} if an operand doesn't have the size that the shape says.
 */
export async function matmul<T extends FloatArray>(a: T, b: T, shape: ProductShape): Promise<T> {
  const { m, k, n, batch = 1, transposeA = false, transposeB = false } = shape;
  const batchA = operandBatch("a", a.length, m * k, batch);
  const batchB = operandBatch("b", b.length, k * n, batch);
  if (batch * m * k * n <= PLAIN_LIMIT) return plainProduct(a, b, shape);
  const type: ElementType = a instanceof Float32Array ? "float32" : "float64";
  if (type === "float64" && batch > 1 && (transposeA || transposeB)) return await eachAlone(a, b, shape);
  const session = await sessionFor(type, transposeA, transposeB);
  const dimsA = transposeA ? [k, m] : [m, k];
  const dimsB = transposeB ? [n, k] : [k, n];
  const result = new (a.constructor as new (length: number) => T)(batch * m * n);
  const rows = batchA > 1 || batchB > 1 ? [batch, m, n] : [m, n];
  // the result's memory is handed over: what ONNX Runtime allocates itself, it copies
  const output = { y: new Tensor(type, result, rows) };
  await session.run({
    a: new Tensor(type, a, batchA > 1 ? [batchA, ...dimsA] : dimsA),
    b: new Tensor(type, b, batchB > 1 ? [batchB, ...dimsB] : dimsB),
  }, output);
  return result;
}

/** Several float64 products with a transposed operand: Gemm takes one at a time. */
async function eachAlone<T extends FloatArray>(a: T, b: T, shape: ProductShape): Promise<T> {
  const { m, k, n, batch = 1 } = shape;
  const result = new (a.constructor as new (length: number) => T)(batch * m * n);
  for (let index = 0; index < batch; index++) {
    const of = (operand: T, size: number): T =>
      (operand.length === size ? operand : operand.subarray(index * size, (index + 1) * size)) as T;
    result.set(await matmul(of(a, m * k), of(b, k * n), { ...shape, batch: 1 }), index * m * n);
  }
  return result;
}

function operandBatch(name: string, length: number, size: number, batch: number): number {
  if (length !== size && length !== size * batch) {
    throw new RangeError(`matmul: operand ${name} has ${length} numbers; expected ${size} or ${batch} times as many`);
  }
  return length === size ? 1 : batch;
}

/** One session per type and pair of transposes, made at first use; a failed creation is forgotten. */
function sessionFor(type: ElementType, transposeA: boolean, transposeB: boolean): Promise<InferenceSession> {
  sessions ??= new Map();
  const key = `${type}${transposeA ? " aT" : ""}${transposeB ? " bT" : ""}`;
  const known = sessions.get(key);
  if (known !== undefined) return known;
  const created = InferenceSession.create(productModel(type, { transposeA, transposeB }), {
    executionProviders: ["cpu"],
    intraOpNumThreads: availableThreads(),
    enableCpuMemArena: false,
    // Threads that spin for work between the many short calls take the cores from whoever needs them: on busy cores,
    // decompositions took five to ten times as long.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
    graphOptimizationLevel: "disabled",
  });
  sessions.set(key, created);
  created.catch(() => sessions?.delete(key));
  return created;
}

/** The product by plain loops, summed in float64. */
export function plainProduct<T extends FloatArray>(a: T, b: T, shape: ProductShape): T {
  const { m, k, n, batch = 1, transposeA = false, transposeB = false } = shape;
  const result = new (a.constructor as new (length: number) => T)(batch * m * n);
  const [stepA, strideA] = transposeA ? [1, m] : [k, 1];
  const [strideB, stepB] = transposeB ? [1, k] : [n, 1];
  const row = new Float64Array(n);
  for (let index = 0; index < batch; index++) {
    const startA = a.length === m * k ? 0 : index * m * k;
    const startB = b.length === k * n ? 0 : index * k * n;
    for (let i = 0; i < m; i++) {
      row.fill(0);
      for (let p = 0; p < k; p++) {
        const x = a[startA + i * stepA + p * strideA]!;
        const offset = startB + p * strideB;
        for (let j = 0; j < n; j++) row[j]! += x * b[offset + j * stepB]!;
      }
      result.set(row, (index * m + i) * n);
    }
  }
  return result;
}
