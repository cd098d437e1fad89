/**
 * Truncated singular value decomposition of one matrix: LASER (Sharma et al., arXiv 2312.13558) on any attention or FFN
 * matrix, by exact decomposition rather than a random sketch.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { matmul, transposed } from "../linalg/mod.ts";
import { engineFor } from "./engine.ts";
import type { TuckerOps } from "./ops.ts";
import { leadingFactor } from "./subspace.ts";
import { type LayerPlace, sumOfSquares } from "./tensorise.ts";
import type { LowRankFactors } from "./types.ts";

/**
 * LASER's rank for a rate ρ in [0, 10): int(min(m, n)·(10 − ρ)/10), at least 1.
 *
 * @throws TuckerdError `invalid` for a rate outside.
 */
export function laserRank([m, n]: readonly [number, number], rate: number): number {
  if (!(rate >= 0 && rate < 10)) {
    throw new TuckerdError("invalid", `LASER's rate must be at least 0 and below 10, got ${rate}`);
  }
  return Math.max(1, Math.floor(Math.min(m, n) * (10 - rate) / 10));
}

/** Does running m×n as m×r times r×n take fewer numbers than the matrix? */
export function lowRankSaves([m, n]: readonly [number, number], rank: number): boolean {
  return rank * (m + n) < m * n;
}

/** Where a matrix is, for error texts. */
export interface MatrixPlace extends LayerPlace {
  /** Such as `query` or `mlp.down`. */
  readonly matrix: string;
}

/** A matrix in low rank with its measured error. */
export interface MatrixDecomposition {
  readonly factors: LowRankFactors;
  /** ‖W − left @ right‖F / ‖W‖F from a float64 residual. */
  readonly relativeError: number;
}

/** A dense m×n matrix, row-major. */
export interface DenseMatrix {
  readonly data: Float32Array;
  readonly shape: readonly [number, number];
}

/**
 * The best approximation of a matrix in a given rank (Eckart–Young). `left` holds the singular values, `right` has
 * orthonormal rows.
 *
 * @throws TuckerdError `invalid` naming layer and matrix for a rank out of range or entries that aren't finite.
 */
export async function truncatedSvd(
  { data, shape: [m, n] }: DenseMatrix,
  { rank, where }: { readonly rank: number; readonly where: MatrixPlace },
  ops: TuckerOps,
): Promise<MatrixDecomposition> {
  const place = `layer ${where.layer} (${where.name}), ${where.matrix}`;
  if (!(Number.isInteger(rank) && rank >= 1 && rank <= Math.min(m, n))) {
    throw new TuckerdError(
      "invalid",
      `${place}: the rank of a ${m}×${n} matrix must be a whole number from 1 to ${Math.min(m, n)}, got ${rank}`,
      { fields: { layer: where.layer, matrix: where.matrix, value: rank, limit: Math.min(m, n) } },
    );
  }
  const norm = Math.sqrt(sumOfSquares(data));
  if (!Number.isFinite(norm)) {
    throw new TuckerdError("invalid", `${place}: the weights hold NaN or infinite entries; check the model file`, {
      fields: { layer: where.layer, matrix: where.matrix },
    });
  }
  const basis = await rightBasis({ data, shape: [m, n] }, { rank, norm }, ops);
  const left = new Float32Array(m * rank);
  const right = new Float32Array(transposed(basis, n, rank));
  let residual = 0;
  const step = Math.max(1, Math.floor(BLOCK_NUMBERS / n));
  for (let row = 0; row < m; row += step) {
    const rows = Math.min(step, m - row);
    const block = new Float64Array(data.subarray(row * n, (row + rows) * n));
    const coordinates = new Float32Array(await matmul(block, basis, { m: rows, k: n, n: rank }));
    left.set(coordinates, row * rank);
    const back = await matmul(new Float64Array(coordinates), new Float64Array(right), { m: rows, k: rank, n });
    for (let i = 0; i < block.length; i++) residual += (block[i]! - back[i]!) ** 2;
  }
  return { factors: { rank, left, right }, relativeError: norm === 0 ? 0 : Math.sqrt(residual) / norm };
}

/** Numbers of the matrix that are held in float64 at once. */
const BLOCK_NUMBERS = 1 << 20;

/** The leading right singular vectors, n × rank. */
async function rightBasis(
  { data, shape: [m, n] }: DenseMatrix,
  { rank, norm }: { readonly rank: number; readonly norm: number },
  ops: TuckerOps,
): Promise<Float64Array> {
  const engine = engineFor(ops, m * n);
  const columns = new engine.Array(m * n);
  const scale = norm === 0 ? 1 : 1 / norm;
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) columns[j * m + i] = data[i * n + j]! * scale;
  using tensor = await engine.uploadWeights(columns, [n, m], scale);
  return (await leadingFactor(engine, tensor, { mode: 0, rank })).matrix;
}
