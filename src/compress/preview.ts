/**
 * What given ranks would cost and save, before anything is decomposed.
 *
 * @module
 */
import { compressedParameters, layerParameters } from "../tucker/mod.ts";
import type { Ranks } from "../tucker/types.ts";
import type { LayerTask } from "./layer_task.ts";
import { type LayerPlan, tensorShape } from "./plan.ts";
import type { LayerSpectrum } from "./spectrum_file.ts";

/** One layer of a preview. */
export interface LayerPreview {
  readonly layer: number;
  readonly name: string;
  /** Null where the layer stays as it is. */
  readonly ranks: Ranks | null;
  readonly parameters: number;
  readonly compressedParameters: number;
  readonly compressionRatio: number;
  /** Of the truncated HOSVD: an upper bound that HOOI comes in under. */
  readonly relativeError: number;
}

/** What given ranks would cost and save. */
export interface CompressionPreview {
  readonly totals: {
    readonly attentionParameters: number;
    readonly compressedParameters: number;
    readonly compressionRatio: number;
  };
  readonly layers: readonly LayerPreview[];
}

/** Makes a preview from every layer's plan, task (where it has one) and spectrum. */
export function previewOf(
  plans: readonly LayerPlan[],
  tasks: readonly LayerTask[],
  spectra: readonly LayerSpectrum[],
): CompressionPreview {
  const ranksOf = new Map(tasks.map((task) => [task.layer, task.ranks]));
  const layers = plans.map(({ block }, index): LayerPreview => {
    const ranks = ranksOf.get(block.layer) ?? null;
    const shape = tensorShape(block);
    const parameters = layerParameters(shape);
    const compressed = ranks === null ? parameters : compressedParameters(shape, ranks);
    return {
      layer: block.layer,
      name: block.name,
      ranks,
      parameters,
      compressedParameters: compressed,
      compressionRatio: parameters / compressed,
      relativeError: ranks === null ? 0 : spectra[index]!.errors.relativeError(ranks),
    };
  });
  const attentionParameters = layers.reduce((sum, layer) => sum + layer.parameters, 0);
  const total = layers.reduce((sum, layer) => sum + layer.compressedParameters, 0);
  return {
    totals: {
      attentionParameters,
      compressedParameters: total,
      compressionRatio: attentionParameters / total,
    },
    layers,
  };
}
