/**
 * Every decomposition seen as one product per matrix, Ŵ = left @ right in float64: what reconstruction, error measurement
 * and folding have in common.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { matmul } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { isTransposed } from "./tensorise.ts";
import type { LayerFactors, Layout, Tucker3Factors, TuckerFactors } from "./types.ts";

/** Ŵ = left (rows × rank) @ right (rank × columns). */
export interface MatrixProduct {
  readonly left: Float64Array;
  readonly right: Float64Array;
  readonly rank: number;
  /** The product is the transpose of the matrix as `AttentionWeights` stores it. */
  readonly transposed: boolean;
}

/** Head count and head size of the block that the factors belong to. */
export type HeadSizes = Pick<AttentionWeights, "heads" | "headSize">;

/** Which matrices, in which layout. */
export interface ProductChoice {
  readonly layout: Layout;
  readonly names?: readonly MatrixName[];
}

/**
 * The product of each matrix that the factors stand for, computed one at a time. Its arrays are given back when the next is asked for: in
 * float64 they take as much as the matrix, and the collector doesn't hurry.
 */
export async function* matrixProducts(
  factors: LayerFactors,
  { heads, headSize }: HeadSizes,
  { layout, names = MATRICES }: ProductChoice,
): AsyncGenerator<[MatrixName, MatrixProduct]> {
  for (const name of names) {
    const product = await productOf(factors, name, { heads, headSize, layout });
    if (product === undefined) continue;
    try {
      yield [name, product];
    } finally {
      release(product.left, product.right);
    }
  }
}

async function productOf(
  factors: LayerFactors,
  name: MatrixName,
  { layout, ...sizes }: HeadSizes & Pick<ProductChoice, "layout">,
): Promise<MatrixProduct | undefined> {
  const transposed = isTransposed(name, layout);
  if (factors.kind === "tucker4") {
    const { u1, ranks: [rank] } = factors.factors;
    const right = await expandedHeads(headCore(factors.factors, name), sizes);
    return { left: new Float64Array(u1), right, rank, transposed };
  }
  const matrix = factors.matrices[name];
  if (matrix === undefined) return undefined;
  if ("core" in matrix) {
    const right = await expandedHeads(ownCore(matrix), sizes);
    return { left: new Float64Array(matrix.u1), right, rank: matrix.ranks[0], transposed };
  }
  const [left, right] = [new Float64Array(matrix.left), new Float64Array(matrix.right)];
  return { left, right, rank: matrix.rank, transposed: false };
}

/** One matrix in the small space: W_i ≈ U1 C_i U2ᵀ for every head i. */
export interface HeadCore {
  readonly rank1: number;
  readonly rank2: number;
  /** h × r2. */
  readonly u2: Float64Array;
  /** C_i side by side: r1 × (H·r2). */
  readonly core: Float64Array;
}

/** C_s,i = scale_s · Σ_k U3[s, k] G[:, :, k, i] (TensorLLM, equation of the reconstruction, by heads). */
export function headCore(factors: TuckerFactors, name: MatrixName): HeadCore {
  const { ranks: [r1, r2, r3], u2, u3, core, matrixScales } = factors;
  const heads = core.length / (r1 * r2 * r3);
  const slot = MATRICES.indexOf(name);
  const mixed = new Float64Array(r1 * heads * r2);
  for (let k = 0; k < r3; k++) {
    const weight = u3[slot * r3 + k]! * matrixScales[slot]!;
    for (let a = 0; a < r1; a++) {
      for (let j = 0; j < r2; j++) {
        const source = ((a * r2 + j) * r3 + k) * heads;
        for (let i = 0; i < heads; i++) mixed[(a * heads + i) * r2 + j]! += weight * core[source + i]!;
      }
    }
  }
  return { rank1: r1, rank2: r2, u2: new Float64Array(u2), core: mixed };
}

/** The same for one matrix decomposed alone. */
export function ownCore({ ranks: [r1, r2], u2, core }: Tucker3Factors): HeadCore {
  const heads = core.length / (r1 * r2);
  const ordered = new Float64Array(core.length);
  for (let a = 0; a < r1; a++) {
    for (let j = 0; j < r2; j++) {
      for (let i = 0; i < heads; i++) ordered[(a * heads + i) * r2 + j] = core[(a * r2 + j) * heads + i]!;
    }
  }
  return { rank1: r1, rank2: r2, u2: new Float64Array(u2), core: ordered };
}

/** C_i U2ᵀ side by side: r1 × (H·h). The core is given back. */
async function expandedHeads(
  { rank1, rank2, u2, core }: HeadCore,
  { heads, headSize }: HeadSizes,
): Promise<Float64Array> {
  const expanded = await matmul(core, u2, { m: rank1 * heads, k: rank2, n: headSize, transposeB: true });
  release(core, u2);
  return expanded;
}
