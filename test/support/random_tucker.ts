/**
 * Random ranks and subspaces for blocks: any of them must run factored as it runs dense.
 *
 * @module
 */
import type { AttentionWeights } from "../../src/attention/types.ts";
import { projectOnto, type ReferenceTucker, stackWeights } from "./tucker_reference.ts";

/** Numbers from 0 to 1 from a seed (a linear congruential generator). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Weights projected onto random subspaces of random ranks. */
export function randomTucker(weights: AttentionWeights, random: () => number): ReferenceTucker {
  const { hiddenSize: d, headSize: h, heads } = weights;
  const rank = (n: number): number => 1 + Math.floor(random() * n);
  const [u1, u2, u3] = [d, h, 4].map((n) => randomBasis(n, rank(n), random)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return projectOnto({ d, h, heads, data: stackWeights(weights) }, { u1, u2, u3 });
}

/** A random orthonormal basis, n × r. */
export function randomBasis(n: number, r: number, random: () => number): Float64Array {
  const columns: Float64Array[] = [];
  while (columns.length < r) {
    const column = Float64Array.from({ length: n }, () => random() + random() + random() - 1.5);
    for (const other of [...columns, ...columns]) {
      const along = column.reduce((sum, value, i) => sum + value * other[i]!, 0);
      other.forEach((value, i) => column[i]! -= along * value);
    }
    const length = Math.hypot(...column);
    if (length > 1e-3) columns.push(column.map((value) => value / length));
  }
  return Float64Array.from({ length: n * r }, (_, i) => columns[i % r]![Math.floor(i / r)]!);
}
