/**
 * What a compression has in hand once everything is decomposed.
 *
 * @module
 */
import type { FeedForwardBlock } from "../attention/feed_forward/types.ts";
import type { AttentionBlock } from "../attention/types.ts";
import { lowRankSaves } from "../tucker/mod.ts";
import type { StoredLayer } from "./layer_file.ts";
import type { LayerTask, MatrixTask } from "./layer_task.ts";
import { feedForwardMatrix } from "./matrices.ts";
import type { StoredMatrix } from "./matrix_file.ts";
import type { Sketch } from "./sketch.ts";

/** One layer's attention with its decomposition; its numbers stay in the store. */
export interface CompressedLayer {
  readonly block: AttentionBlock;
  readonly task: LayerTask;
  readonly stored: Sketch<StoredLayer>;
  /** Reads the numbers: arrays of the caller's own. */
  readonly load: () => Promise<StoredLayer>;
}

/** One truncated matrix of a feed-forward network; its numbers stay in the store. */
export interface CompressedMatrix {
  readonly task: MatrixTask;
  readonly shape: readonly [number, number];
  readonly stored: Sketch<StoredMatrix>;
  /** Reads the numbers: arrays of the caller's own. */
  readonly load: () => Promise<StoredMatrix>;
  /** `factored` as two matrices where that takes fewer numbers, else `dense` as the one that they make. */
  readonly execution: "factored" | "dense";
}

/** All that was decomposed; whatever isn't named stays as it is. */
export interface Decomposed {
  readonly layers: readonly CompressedLayer[];
  readonly matrices: readonly CompressedMatrix[];
}

/** A truncated matrix, with the way it runs. */
export function compressedMatrix(
  networks: readonly FeedForwardBlock[],
  { task, stored, load }: Pick<CompressedMatrix, "task" | "stored" | "load">,
): CompressedMatrix {
  const { rows, columns } = feedForwardMatrix(networks, task);
  const shape = [rows, columns] as const;
  return { task, shape, stored, load, execution: lowRankSaves(shape, stored.factors.rank) ? "factored" : "dense" };
}
