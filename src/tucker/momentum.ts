/**
 * Where sweeps start and how they are sped up.
 *
 * @module
 */
import { matmul, noise, orthonormalColumns } from "../linalg/mod.ts";

/** How far a factor is carried on, as a part of its last move. */
const MOMENTUM = 0.9;

/**
 * A factor carried on in the direction of its last move: U + β (I − V Vᵀ) U, orthonormalised, the second term being what U has
 * that the factor before it, V, hadn't. (The heavy ball of gradient methods, Polyak 1964, taken on subspaces.)
 *
 * @param found n × r, orthonormal columns
 * @param before the same, one sweep earlier
 */
export async function movedOn(found: Float64Array, before: Float64Array, n: number): Promise<Float64Array> {
  const rank = found.length / n;
  const overlap = await matmul(before, found, { m: rank, k: n, n: rank, transposeA: true });
  const old = await matmul(before, overlap, { m: n, k: rank, n: rank });
  const moved = found.map((value, i) => value + MOMENTUM * (value - old[i]!));
  return await orthonormalColumns(moved, n, rank);
}

/** Directions of a sketch at least: the Gram matrices of the small modes are then known to some per cent. */
const LEAST_DIRECTIONS = 128;

/**
 * Random directions of a mode of size n from which to start for a factor of the given rank, n × as many, but at least 128. The projection on
 * them keeps, on average and up to a scale, the Gram matrices of the other modes.
 */
export function sketchDirections(n: number, rank: number): Float64Array {
  return new Float64Array(noise(n * Math.min(n, Math.max(rank, LEAST_DIRECTIONS))));
}
