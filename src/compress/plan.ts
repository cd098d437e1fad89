/**
 * From what a user asks to what each layer gets: which layers are decomposed, in which mode, at which ranks.
 *
 * @module
 */
import type { AttentionBlock } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { checkRanks, parseLayers } from "../tucker/mod.ts";
import type { LayerMode, Ranks } from "../tucker/types.ts";
import type { CompressionOptions, CompressionTarget } from "./options.ts";

/** What one layer gets before its ranks are known. */
export interface LayerPlan {
  readonly block: AttentionBlock;
  readonly mode: LayerMode | "auto";
  /** How its ranks are found; undefined for a layer that stays dense. */
  readonly target: CompressionTarget | undefined;
}

/** d × h × 4 × H of a block's tensor. */
export function tensorShape(block: AttentionBlock): readonly [number, number, number, number] {
  return [block.hiddenSize, block.headSize, 4, block.heads];
}

/**
 * Plans every layer.
 *
 * @throws TuckerdError `invalid` naming layer, rule and value: a layer that isn't there, ranks above their dimensions
 */
export function planLayers(blocks: readonly AttentionBlock[], options: CompressionOptions): readonly LayerPlan[] {
  const chosen = new Set(options.mode === "none" ? [] : parseLayers(options.layers, blocks.length));
  for (const layer of options.overrides.keys()) {
    if (layer >= blocks.length) {
      throw new TuckerdError(
        "invalid",
        `overrides: layer ${layer} doesn't exist; the model has ${blocks.length} attention layers, 0 to ${
          blocks.length - 1
        }`,
      );
    }
  }
  return blocks.map((block) => {
    const override = options.overrides.get(block.layer);
    const ranks = override?.ranks;
    const skipped = override?.skip === true || (ranks === undefined && !chosen.has(block.layer));
    if (skipped || options.mode === "none") return { block, mode: "none", target: undefined };
    const target: CompressionTarget = ranks === undefined ? options.target : { kind: "ranks", ranks };
    if (target.kind === "ranks") checkBlockRanks(block, target.ranks);
    return { block, mode: options.mode, target };
  });
}

function checkBlockRanks(block: AttentionBlock, ranks: Ranks): void {
  checkRanks(tensorShape(block), ranks, { layer: block.layer, name: block.name });
}
