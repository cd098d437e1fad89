/**
 * Mode `laser` on the matrices of one layer (LASER: Sharma et al., arXiv 2312.13558): truncated singular value decompositions,
 * and the singular values from which ranks are chosen.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { matmul, symmetricEigen } from "../linalg/mod.ts";
import { type DenseMatrix, type LayerPlace, truncatedSvd } from "../tucker/mod.ts";
import type { TuckerOps } from "../tucker/ops.ts";
import type { LayerDecomposition, LowRankFactors } from "../tucker/types.ts";

/** A matrix of an attention block, d × (H·h), or (H·h) × d for `output`. */
export function attentionMatrix(weights: AttentionWeights, name: MatrixName): DenseMatrix {
  const { hiddenSize, heads, headSize } = weights;
  const width = heads * headSize;
  return { data: weights[name], shape: name === "output" ? [width, hiddenSize] : [hiddenSize, width] };
}

/**
 * Truncates the matrices of an attention block that are named in `ranks`; the others stay as they are.
 *
 * @throws TuckerdError `invalid` naming layer and matrix, for a rank out of range or entries that aren't finite.
 */
export async function truncateAttention(
  weights: AttentionWeights,
  { ranks, where }: { readonly ranks: Partial<Record<MatrixName, number>>; readonly where: LayerPlace },
  ops: TuckerOps,
): Promise<LayerDecomposition> {
  const start = performance.now();
  const matrices: Partial<Record<MatrixName, LowRankFactors>> = {};
  const errors: Record<MatrixName, number> = { query: 0, key: 0, value: 0, output: 0 };
  let [residual, total] = [0, 0];
  for (const name of MATRICES) {
    const matrix = attentionMatrix(weights, name);
    const norm2 = sumOfSquares(matrix.data);
    total += norm2;
    const rank = ranks[name];
    if (rank === undefined) continue;
    const truncated = await truncatedSvd(matrix, { rank, where: { ...where, matrix: name } }, ops);
    matrices[name] = truncated.factors;
    errors[name] = truncated.relativeError;
    residual += truncated.relativeError ** 2 * norm2;
  }
  return {
    factors: { kind: "low-rank", matrices },
    relativeError: residual === 0 ? 0 : Math.sqrt(residual / total),
    matrixErrors: { q: errors.query, k: errors.key, v: errors.value, o: errors.output },
    sweeps: 0,
    converged: true,
    seconds: (performance.now() - start) / 1000,
  };
}

/**
 * All singular values of a matrix, descending, from the Gram matrix of its smaller side in float64: those below 1e-8 of the largest are
 * noise, which energies don't see.
 *
 * @throws TuckerdError `invalid` where entries aren't finite.
 */
export async function singularValues({ data, shape: [m, n] }: DenseMatrix, place: string): Promise<Float64Array> {
  if (!Number.isFinite(sumOfSquares(data))) {
    throw new TuckerdError("invalid", `${place}: the weights hold NaN or infinite entries; check the model file`);
  }
  const numbers = new Float64Array(data);
  const side = Math.min(m, n);
  const gram = m < n
    ? await matmul(numbers, numbers, { m, k: n, n: m, transposeB: true })
    : await matmul(numbers, numbers, { m: n, k: m, n, transposeA: true });
  const { values } = await symmetricEigen(gram, side, 1);
  return values.map((value) => Math.sqrt(Math.max(0, value)));
}

function sumOfSquares(numbers: Float32Array): number {
  let sum = 0;
  for (const value of numbers) sum += value * value;
  return sum;
}
