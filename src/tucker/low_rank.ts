/**
 * Truncated singular value decomposition of one matrix: LASER (Sharma et al., arXiv 2312.13558) on any attention or FFN
 * matrix, by exact decomposition rather than a random sketch.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { matmul } from "../linalg/mod.ts";
import { engineFor } from "./engine.ts";
import type { TuckerOps } from "./ops.ts";
import { leadingFactor } from "./subspace.ts";
import type { LayerPlace } from "./tensorise.ts";
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
  const norm = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0));
  if (!Number.isFinite(norm)) {
    throw new TuckerdError("invalid", `${place}: the weights hold NaN or infinite entries; check the model file`, {
      fields: { layer: where.layer, matrix: where.matrix },
    });
  }
  const numbers = new Float64Array(data);
  const basis = await rightBasis({ numbers, m, n }, { rank, norm }, ops);
  const left = await matmul(numbers, basis, { m, k: n, n: rank });
  const factors = {
    rank,
    left: Float32Array.from(left),
    right: Float32Array.from({ length: rank * n }, (_, index) => basis[(index % n) * rank + Math.floor(index / n)]!),
  };
  return { factors, relativeError: norm === 0 ? 0 : await residual({ numbers, m, n }, factors) / norm };
}

interface Numbers {
  readonly numbers: Float64Array;
  readonly m: number;
  readonly n: number;
}

/** The leading right singular vectors, n × rank. */
async function rightBasis(
  { numbers, m, n }: Numbers,
  { rank, norm }: { readonly rank: number; readonly norm: number },
  ops: TuckerOps,
): Promise<Float64Array> {
  const engine = engineFor(ops, m * n);
  const transposed = new Float64Array(m * n);
  const scale = norm === 0 ? 1 : 1 / norm;
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) transposed[j * m + i] = numbers[i * n + j]! * scale;
  using tensor = engine.upload(transposed, [n, m]);
  return (await leadingFactor(engine, tensor, { mode: 0, rank })).matrix;
}

async function residual({ numbers, m, n }: Numbers, { left, right, rank }: LowRankFactors): Promise<number> {
  const product = await matmul(new Float64Array(left), new Float64Array(right), { m, k: rank, n });
  return Math.sqrt(product.reduce((sum, value, index) => sum + (value - numbers[index]!) ** 2, 0));
}
