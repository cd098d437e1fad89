/**
 * The space in which the heads of a block run: an orthonormal basis B (h×ρ), and coordinates in it.
 *
 * @module
 */
import { plainProduct } from "../linalg/mod.ts";
import type { Projection } from "./projection.ts";

/** Rows of numbers in the coordinates of some basis. */
export interface Coordinates {
  readonly rows: number;
  /** Numbers in a row. */
  readonly rank: number;
  /** h × rank, or undefined where the rows are in the head's own h coordinates. */
  readonly basis: Float64Array | undefined;
  readonly head: number;
}

/** A space of ρ dimensions within the h of a head; may differ from head to head. */
export interface HeadSpace {
  /** ρ. */
  readonly rank: number;
  /** Rows x given in coordinates of U become x Uᵀ B: rows × ρ. */
  project(numbers: Float64Array, coordinates: Coordinates): Float64Array;
}

/** All h dimensions: coordinates are expanded to them. */
export function headSpace(headSize: number): HeadSpace {
  return {
    rank: headSize,
    project: (numbers, { rows, rank, basis }) =>
      basis === undefined ? numbers : plainProduct(numbers, basis, { m: rows, k: rank, n: headSize, transposeB: true }),
  };
}

/** The subspace that a projection lives in. */
export function ownSpace({ rank, basis }: Projection): HeadSpace {
  return basis === undefined ? headSpace(rank) : subspace(rank, () => basis);
}

function subspace(rank: number, basisOf: (head: number) => Float64Array): HeadSpace {
  return {
    rank,
    project(numbers, { rows, rank: given, basis, head }): Float64Array {
      const target = basisOf(head);
      if (basis === target) return numbers;
      const headSize = target.length / rank;
      if (basis === undefined) return plainProduct(numbers, target, { m: rows, k: headSize, n: rank });
      const change = plainProduct(basis, target, { m: given, k: headSize, n: rank, transposeA: true });
      return plainProduct(numbers, change, { m: rows, k: given, n: rank });
    },
  };
}

/** Values and outputs run in the smaller of their subspaces: what the other side has beyond it is never seen. */
export function valueSpace(value: Projection, output: Projection): HeadSpace {
  return ownSpace(output.rank < value.rank ? output : value);
}

/** What the choice of the space of scores depends on beside the projections. */
export interface ScoreOptions {
  /** b_Q, H·h. */
  readonly bias: Float32Array | undefined;
  readonly heads: number;
  /** Key heads that run. */
  readonly groups: number;
}

/**
 * The space of scores: the subspace of the keys; or, where that is smaller, the subspace of the queries. A query bias
 * needn't lie in the latter, so each group of heads gets a basis with its biases' directions added: the scores stay exact.
 */
export function scoreSpace(query: Projection, key: Projection, { bias, heads, groups }: ScoreOptions): HeadSpace {
  if (query.basis === undefined || query.rank >= key.rank) return ownSpace(key);
  if (bias === undefined) return ownSpace(query);
  const headSize = bias.length / heads;
  const perGroup = heads / groups;
  const rank = query.rank + perGroup;
  if (rank >= key.rank) return ownSpace(key);
  const bases = Array.from({ length: groups }, (_, group) => {
    const added = bias.subarray(group * perGroup * headSize, (group + 1) * perGroup * headSize);
    return extendedBasis(query.basis!, headSize, added);
  });
  return subspace(rank, (head) => bases[Math.floor(head / perGroup)]!);
}

/**
 * A basis with the parts of further vectors that it doesn't hold, orthonormalised (Gram–Schmidt, twice); a vector that it
 * holds already adds a column of zeros, so that all groups have the same size.
 */
function extendedBasis(basis: Float64Array, headSize: number, vectors: Float32Array): Float64Array {
  const rank = basis.length / headSize;
  const width = rank + vectors.length / headSize;
  const result = new Float64Array(headSize * width);
  for (let i = 0; i < headSize; i++) result.set(basis.subarray(i * rank, (i + 1) * rank), i * width);
  for (let column = rank; column < width; column++) {
    const start = (column - rank) * headSize;
    const vector = Float64Array.from(vectors.subarray(start, start + headSize));
    const before = Math.hypot(...vector);
    for (let pass = 0; pass < 2; pass++) {
      for (let other = 0; other < column; other++) {
        let dot = 0;
        for (let i = 0; i < headSize; i++) dot += result[i * width + other]! * vector[i]!;
        for (let i = 0; i < headSize; i++) vector[i]! -= dot * result[i * width + other]!;
      }
    }
    const norm = Math.hypot(...vector);
    if (norm <= 1e-12 * before) continue;
    for (let i = 0; i < headSize; i++) result[i * width + column] = vector[i]! / norm;
  }
  return result;
}
