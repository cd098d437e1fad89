/**
 * Tensors that are made a layer at a time, when a model is written: of a large model neither the factors of all layers nor what is
 * folded from them fit in memory with ease.
 *
 * @module
 */
import { release } from "../release.ts";

/** Makes all tensors of a layer, by name, in arrays that nobody else holds. */
export type MakeLayer = () => Promise<ReadonlyMap<string, Float32Array>>;

/** The tensors of the layer whose turn it is. */
export class LayerTensors {
  #make: MakeLayer | undefined;
  #left = new Map<string, Float32Array>();

  /**
   * A tensor, for the caller to keep. Those of a layer (the same `make`) are best taken one after the other: when another layer is asked
   * for, the rest is given back, and would have to be made again.
   */
  async take(make: MakeLayer, name: string): Promise<Float32Array> {
    if (this.#make !== make || !this.#left.has(name)) {
      release(...this.#left.values());
      this.#left = new Map(await make());
      this.#make = make;
    }
    const numbers = this.#left.get(name);
    if (numbers === undefined) throw new RangeError(`the layer has no tensor ${name}`);
    this.#left.delete(name);
    return numbers;
  }
}
