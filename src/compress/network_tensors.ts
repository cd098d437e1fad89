/**
 * Truncated matrices of feed-forward networks as tensors of a graph.
 *
 * @module
 */
import type { FeedForwardForm, FeedForwardSlot } from "../attention/feed_forward/mod.ts";
import { matmul } from "../linalg/mod.ts";
import { release } from "../release.ts";
import type { FactorTensor } from "./artifact.ts";
import type { CompressedMatrix } from "./decomposed.ts";

/** How a truncated matrix runs. */
export function networkForm({ task: { layer, index, matrix }, execution }: CompressedMatrix): FeedForwardForm {
  return { layer, index, matrix, form: execution === "factored" ? "pair" : "dense" };
}

function matrixOf({ layer, index, matrix }: FeedForwardSlot, matrices: readonly CompressedMatrix[]): CompressedMatrix {
  return matrices.find(({ task }) => task.layer === layer && task.index === index && task.matrix === matrix)!;
}

/** The shape of what a slot of a network takes. */
export function networkShape(slot: FeedForwardSlot, matrices: readonly CompressedMatrix[]): readonly number[] {
  const { shape: [m, n], stored: { factors: { rank } } } = matrixOf(slot, matrices);
  return slot.part === "a" ? [m, rank] : slot.part === "b" ? [rank, n] : [m, n];
}

/** What a slot of a network takes: numbers that are read, or made, for the caller. */
export async function networkTensor(
  slot: FeedForwardSlot,
  matrices: readonly CompressedMatrix[],
): Promise<FactorTensor> {
  const { shape: [m, n], load } = matrixOf(slot, matrices);
  const shape = networkShape(slot, matrices);
  const { factors: { left, right, rank } } = await load();
  if (slot.part !== "dense") {
    const [data, other] = slot.part === "a" ? [left, right] : [right, left];
    release(other);
    return { shape, data };
  }
  const factors = [new Float64Array(left), new Float64Array(right)] as const;
  const product = await matmul(...factors, { m, k: rank, n });
  const data = Float32Array.from(product);
  release(left, right, ...factors, product);
  return { shape, data };
}
