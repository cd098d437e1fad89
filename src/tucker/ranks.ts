/**
 * What ranks mean: parameters, ratios, rules, and the layers that they are for.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { LayerPlace } from "./tensorise.ts";
import type { Ranks } from "./types.ts";

/** d × h × 4 × H of a layer's tensor. */
export type LayerShape = readonly [hidden: number, headSize: number, stack: number, heads: number];

/** Numbers in the four projections of a layer: 4·d·h·H. */
export function layerParameters([hidden, headSize, stack, heads]: LayerShape): number {
  return hidden * headSize * stack * heads;
}

/** Numbers in the factors: r1·r2·r3·H + d·r1 + h·r2 + 4·r3 (TensorLLM, section III). */
export function compressedParameters([hidden, headSize, stack, heads]: LayerShape, [r1, r2, r3]: Ranks): number {
  return r1 * r2 * r3 * heads + hidden * r1 + headSize * r2 + stack * r3;
}

/** The paper's ratio of a layer's parameters before and after; below 1 where the factors are larger than the weights. */
export function compressionRatio(shape: LayerShape, ranks: Ranks): number {
  return layerParameters(shape) / compressedParameters(shape, ranks);
}

/**
 * Checks ranks against the tensor's dimensions.
 *
 * @throws TuckerdError `invalid` naming the layer, the rank and its dimension.
 */
export function checkRanks(shape: LayerShape, ranks: readonly number[], where: LayerPlace): asserts ranks is Ranks {
  const place = `layer ${where.layer} (${where.name})`;
  if (ranks.length !== 3) {
    throw new TuckerdError("invalid", `${place}: ranks are three whole numbers r1,r2,r3, got [${ranks}]`);
  }
  for (const [mode, dimension] of ["hidden size", "head size", "number of stacked matrices"].entries()) {
    const rank = ranks[mode]!;
    const limit = shape[mode]!;
    if (Number.isInteger(rank) && rank >= 1 && rank <= limit) continue;
    throw new TuckerdError(
      "invalid",
      `${place}: rank r${mode + 1} must be a whole number from 1 to ${limit}, the ${dimension}; got ${rank}`,
      { fields: { layer: where.layer, rank: `r${mode + 1}`, value: rank, limit } },
    );
  }
}

/**
 * Layers named by `all` or by a list such as `0,2-5`, ascending and without repeats.
 *
 * @param count layers that the model has
 * @throws TuckerdError `invalid` if the text isn't such a list or names a layer that isn't there.
 */
export function parseLayers(text: string, count: number): number[] {
  if (text.trim() === "all") return Array.from({ length: count }, (_, layer) => layer);
  const chosen = new Set<number>();
  for (const part of text.split(",")) {
    const match = /^\s*(\d+)\s*(?:-\s*(\d+)\s*)?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || last < first) {
      throw new TuckerdError(
        "invalid",
        `layers must be "all" or a list such as "0,2-5"; "${part.trim()}" in "${text}" is neither a number nor a range`,
      );
    }
    if (last >= count) {
      throw new TuckerdError(
        "invalid",
        `layer ${last} in "${text}" doesn't exist; the model has ${count} attention layers, 0 to ${count - 1}`,
      );
    }
    for (let layer = first; layer <= last; layer++) chosen.add(layer);
  }
  return [...chosen].sort((a, b) => a - b);
}
