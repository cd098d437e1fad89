/**
 * What a graph takes in place of a layer's weights: tensors folded from its factors, now or when the model is written.
 *
 * @module
 */
import { type BlockForm, extractWeights, type FactorNumbers, type FactorSlot } from "../attention/mod.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { release } from "../release.ts";
import { foldFactors } from "../tucker/mod.ts";
import type { FactorTensor } from "./artifact.ts";
import type { FoldedLayer } from "./cache_layout.ts";
import type { CompressedLayer } from "./decomposed.ts";
import type { LayerTensors } from "./layer_tensors.ts";
import { symbolOf } from "./rank_symbols.ts";
import { releaseNumbers } from "./sketch.ts";

/** A layer with its tensors, which may be made only when the model is written. */
export interface PreparedLayer extends FoldedLayer {
  readonly tensors: ReadonlyMap<string, FactorNumbers>;
}

/** Folds the layers of one model. */
export class LayerFolder {
  readonly #model: OnnxModel;
  readonly #turn: LayerTensors | undefined;

  /** @param turn makes tensors when the model is written; without it they are made at once */
  constructor(model: OnnxModel, turn: LayerTensors | undefined) {
    this.#model = model;
    this.#turn = turn;
  }

  /** A layer folded, or, where weights lie in external data, with what folds it when the model is written. */
  async prepare(
    layer: CompressedLayer,
    slots: readonly FactorSlot[],
    forms: ReadonlyMap<number, BlockForm>,
  ): Promise<PreparedLayer> {
    if (this.#turn === undefined) return await this.fold(layer, slots, forms);
    const turn = this.#turn;
    const make = async (): Promise<Map<string, Float32Array>> => {
      const { tensors } = await this.fold(layer, slots, forms);
      return new Map([...tensors].map(([name, { data }]) => [name, data]));
    };
    const sizes = this.#sizes(layer, slots, forms) ?? await this.#measure(layer, slots, forms);
    const tensors = new Map([...sizes.shapes].map(([name, shape]) => [name, {
      shape,
      data: () => turn.take(make, name),
    }]));
    return { ...sizes, tensors };
  }

  /** Folds a layer to learn the shapes. */
  async #measure(
    layer: CompressedLayer,
    slots: readonly FactorSlot[],
    forms: ReadonlyMap<number, BlockForm>,
  ): Promise<FoldedLayer> {
    const { tensors, ...sizes } = await this.fold(layer, slots, forms);
    for (const { data } of tensors.values()) release(data);
    return sizes;
  }

  /** The shapes, where they follow from the ranks: all four matrices in one decomposition have the same. */
  #sizes(
    { block, stored: { decomposition: { factors } } }: CompressedLayer,
    slots: readonly FactorSlot[],
    forms: ReadonlyMap<number, BlockForm>,
  ): FoldedLayer | undefined {
    if (factors.kind !== "tucker4") return undefined;
    const [r1, r2] = factors.factors.ranks;
    const own = slots.filter((slot) => slot.layer === block.layer);
    const sizeOf = (size: number | string): number => {
      if (typeof size === "number") return size;
      const { count, rank } = symbolOf(size);
      return count * (rank.endsWith(".r1") ? r1 : r2);
    };
    const shapes = new Map(own.map(({ name, shape }) => [name, shape.map(sizeOf)]));
    return { block, form: forms.get(block.layer)!, slots: own, shapes };
  }

  /** What the graph takes in place of a layer's weights; factors and weights that were read for it are given back. */
  async fold(
    { block, load }: CompressedLayer,
    slots: readonly FactorSlot[],
    forms: ReadonlyMap<number, BlockForm>,
  ): Promise<FoldedLayer & { readonly tensors: ReadonlyMap<string, FactorTensor> }> {
    const { decomposition } = await load();
    using extracted = extractWeights(this.#model, block);
    const own = slots.filter((slot) => slot.layer === block.layer);
    const form = forms.get(block.layer)!;
    const tensors = foldFactors(decomposition.factors, extracted.biases, extracted.weights, form, own);
    releaseNumbers(decomposition);
    return {
      block,
      form,
      slots: own,
      tensors,
      shapes: new Map([...tensors].map(([name, { shape }]) => [name, shape])),
    };
  }
}
