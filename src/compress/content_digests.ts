/**
 * What a task's result depends on, by the content of the very weights: graphs of one model that hold the same layers then find each
 * other's results in the store, so a layer is decomposed once and has the same factors in all of them.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { extractFeedForward, type FeedForwardMatrixName } from "../attention/feed_forward/mod.ts";
import { extractWeights, type FoundAttention, MATRICES } from "../attention/mod.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { release } from "../release.ts";
import type { KeptTask } from "./layer_task.ts";

/** Digests of the weights of one graph's layers; each is read once, one at a time. */
export class ContentDigests {
  readonly #model: OnnxModel;
  readonly #found: FoundAttention;
  readonly #digests = new Map<string, string>();

  constructor(model: OnnxModel, found: FoundAttention) {
    this.#model = model;
    this.#found = found;
  }

  /** SHA-256, as hex, of the weights that a task is about. */
  of(task: KeptTask): string {
    const network = "index" in task && !MATRICES.some((name) => name === task.matrix);
    const key = network ? `${task.layer} ${task.index} ${task.matrix}` : `${task.layer}`;
    let digest = this.#digests.get(key);
    if (digest === undefined) {
      const hash = createHash("sha256");
      if (network) {
        const { layer, index, matrix } = task;
        const place = { layer, index, matrix: matrix as FeedForwardMatrixName };
        const { data, owned } = extractFeedForward(this.#model, place);
        hash.update(bytesOf(data));
        if (owned) release(data);
      } else {
        const { hiddenSize, heads, headSize, keyValueHeads } = this.#found.blocks[task.layer]!;
        hash.update(`${hiddenSize} ${heads} ${headSize} ${keyValueHeads}`);
        using extracted = extractWeights(this.#model, this.#found.blocks[task.layer]!);
        for (const name of MATRICES) {
          hash.update(bytesOf(extracted.weights[name]));
          extracted.forget();
        }
      }
      this.#digests.set(key, digest = hash.digest("hex"));
    }
    return digest;
  }
}

/** A task without the numbers by which one graph knows its layers. */
export function withoutPlace(task: KeptTask): KeptTask {
  return "index" in task ? { ...task, layer: 0, index: 0 } : { ...task, layer: 0 };
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
