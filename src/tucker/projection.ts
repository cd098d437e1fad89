/**
 * One projection of a block in the form that all modes share: W_i = first · C_i · basisᵀ for every head i.
 *
 * @module
 */
import type { AttentionWeights, MatrixName } from "../attention/types.ts";
import { plainProduct, transposed } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { headCore, ownCore } from "./matrix_products.ts";
import type { LayerFactors, LowRankFactors, Tucker3Factors } from "./types.ts";

/** One projection; of the output projection, its transpose (so that its heads are columns too). */
export interface Projection {
  /** d × inner; undefined where it is the identity (a dense matrix). */
  readonly first: Float64Array | undefined;
  /** Width of the first factor: r1, or d where that is the identity. */
  readonly inner: number;
  /** C_i side by side: inner × (H·rank). */
  readonly core: Float64Array;
  /** Numbers per head in the core: r2, or h where the basis is the identity. */
  readonly rank: number;
  /** h × rank; undefined where it is the identity. Projections of one shared U2 hold the very same array. */
  readonly basis: Float64Array | undefined;
}

/** The four projections, by their factors or, where a matrix wasn't decomposed, by its weights. */
export function projectionsOf(factors: LayerFactors, weights: AttentionWeights): Record<MatrixName, Projection> {
  if (factors.kind === "tucker4") {
    const { u1, u2 } = factors.factors;
    const [first, basis] = [new Float64Array(u1), new Float64Array(u2)];
    return eachMatrix((name) => {
      const { rank1, rank2, core } = headCore(factors.factors, name);
      return { first, inner: rank1, core, rank: rank2, basis };
    });
  }
  if (factors.kind === "tucker3") {
    return eachMatrix((name) => {
      const own = factors.matrices[name];
      return own === undefined ? denseProjection(name, weights) : tucker3Projection(own);
    });
  }
  return eachMatrix((name) => {
    const own = factors.matrices[name];
    return own === undefined ? denseProjection(name, weights) : lowRankProjection(name, own, weights);
  });
}

function eachMatrix(make: (name: MatrixName) => Projection): Record<MatrixName, Projection> {
  return { query: make("query"), key: make("key"), value: make("value"), output: make("output") };
}

function tucker3Projection(factors: Tucker3Factors): Projection {
  const { rank1, rank2, u2, core } = ownCore(factors);
  return { first: new Float64Array(factors.u1), inner: rank1, core, rank: rank2, basis: u2 };
}

function lowRankProjection(name: MatrixName, factors: LowRankFactors, weights: AttentionWeights): Projection {
  const { hiddenSize, heads, headSize } = weights;
  const { rank: inner } = factors;
  const [left, right] = [new Float64Array(factors.left), new Float64Array(factors.right)];
  const full = { inner, rank: headSize, basis: undefined };
  if (name !== "output") return { ...full, first: left, core: right };
  const turned = { first: transposed(right, inner, hiddenSize), core: transposed(left, heads * headSize, inner) };
  release(left, right);
  return { ...full, ...turned };
}

function denseProjection(name: MatrixName, weights: AttentionWeights): Projection {
  const { hiddenSize, heads, headSize } = weights;
  const dense = new Float64Array(weights[name]);
  const core = name === "output" ? transposed(dense, heads * headSize, hiddenSize) : dense;
  if (core !== dense) release(dense);
  return { first: undefined, inner: hiddenSize, core, rank: headSize, basis: undefined };
}

/** The same projection with the first factor multiplied in. */
export function denseForm(projection: Projection): Projection {
  const { first, inner, core } = projection;
  if (first === undefined) return projection;
  const hidden = first.length / inner;
  const product = plainProduct(first, core, { m: hidden, k: inner, n: core.length / inner });
  return { ...projection, first: undefined, inner: hidden, core: product };
}
