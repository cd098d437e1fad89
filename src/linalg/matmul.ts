/**
 * Matrix products on the CPU: ONNX Runtime's MatMul kernels (MLAS, vectorised and threaded) in float32 and float64, plain
 * loops where the call would cost more than the product. All arrays are row-major.
 *
 * @module
 */
import type { SmallGraph } from "./graph_model.ts";
import { type FloatArray, runGraph } from "./graph_runner.ts";

export type { FloatArray };

/** Which operands are stored transposed. */
export interface Transposes {
  /** `a` is stored k×m. */
  readonly transposeA?: boolean;
  /** `b` is stored n×k. */
  readonly transposeB?: boolean;
}

/** Sizes of a product op(a) m×k times op(b) k×n, and how the operands are stored. */
export interface ProductShape extends Transposes {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** Number of products in a row; 1 by default. An operand that holds only one matrix is used in all of them. */
  readonly batch?: number;
}

/** Below this many multiplications a call of ONNX Runtime (tens of microseconds) costs more than plain loops. */
const PLAIN_LIMIT = 1 << 14;

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
  const float64 = a instanceof Float64Array;
  if (float64 && batch > 1 && (transposeA || transposeB)) return await eachAlone(a, b, shape);
  const dimsA = transposeA ? [k, m] : [m, k];
  const dimsB = transposeB ? [n, k] : [k, n];
  return await runGraph(
    `product ${float64 ? "float64" : "float32"}${transposeA ? " aT" : ""}${transposeB ? " bT" : ""}`,
    () => productGraph(float64, { transposeA, transposeB }),
    {
      a: { data: a, dims: batchA > 1 ? [batchA, ...dimsA] : dimsA },
      b: { data: b, dims: batchB > 1 ? [batchB, ...dimsB] : dimsB },
    },
    batchA > 1 || batchB > 1 ? [batch, m, n] : [m, n],
  );
}

/**
 * y = op(a) @ op(b). float32 uses com.microsoft's FusedMatMul, which transposes without a copy and broadcasts leading dimensions. float64
 * has no such kernel: Gemm where an operand is transposed (matrices only), MatMul otherwise.
 */
function productGraph(float64: boolean, { transposeA, transposeB }: Required<Transposes>): SmallGraph {
  const transposed = transposeA || transposeB;
  const own = !float64 && transposed;
  const operator = own ? "FusedMatMul" : transposed ? "Gemm" : "MatMul";
  const attributes = transposed ? { transA: Number(transposeA), transB: Number(transposeB) } : {};
  const nodes = [{ operator, inputs: ["a", "b"], output: "y", own, attributes }];
  return { type: float64 ? "float64" : "float32", inputs: ["a", "b"], nodes, output: "y" };
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
