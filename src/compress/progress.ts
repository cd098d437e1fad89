/**
 * Progress by layer, of tasks of which a layer may have several.
 *
 * @module
 */
import type { LayerTask, MatrixTask } from "./layer_task.ts";

/** Counts tasks until a layer has none left. */
export class LayerProgress {
  readonly #left = new Map<number, number>();
  readonly #errors = new Map<number, { attention?: number; matrices: number }>();
  readonly #onLayer: (layer: number, relativeError: number) => void;

  constructor(
    tasks: readonly (LayerTask | MatrixTask)[],
    onLayer: (layer: number, relativeError: number) => void,
  ) {
    for (const { layer } of tasks) this.#left.set(layer, (this.#left.get(layer) ?? 0) + 1);
    this.#onLayer = onLayer;
  }

  /** Layers that have tasks. */
  get layers(): number {
    return this.#left.size;
  }

  /** A task is done, with this relative error. */
  done({ layer, task }: LayerTask | MatrixTask, relativeError: number): void {
    const errors = this.#errors.get(layer) ?? { matrices: 0 };
    this.#errors.set(layer, errors);
    if (task === "layer") errors.attention = relativeError;
    else errors.matrices = Math.max(errors.matrices, relativeError);
    const left = this.#left.get(layer)! - 1;
    this.#left.set(layer, left);
    if (left === 0) this.#onLayer(layer, errors.attention ?? errors.matrices);
  }
}
