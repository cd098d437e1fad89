/**
 * From what a user asks to what each layer gets: which layers are decomposed, in which mode, at which ranks.
 *
 * @module
 */
import type { FeedForwardBlock } from "../attention/feed_forward/types.ts";
import type { AttentionBlock } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { checkRanks, parseLayers } from "../tucker/mod.ts";
import type { Mode, Ranks } from "../tucker/types.ts";
import { type LayerMatrix, matricesNamed, matricesOf } from "./matrices.ts";
import type { CompressionOptions, CompressionTarget } from "./options.ts";

/** What one layer gets before its ranks are known. */
export interface LayerPlan {
  readonly block: AttentionBlock;
  readonly mode: Mode;
  /** How the ranks of its attention's tensor are found; undefined where that isn't decomposed as a whole. */
  readonly target: Exclude<CompressionTarget, { readonly kind: "rate" }> | undefined;
  /** Matrices to be truncated, of its attention and of its feed-forward networks. */
  readonly truncated: readonly LayerMatrix[];
}

/** d × h × 4 × H of a block's tensor. */
export function tensorShape(block: AttentionBlock): readonly [number, number, number, number] {
  return [block.hiddenSize, block.headSize, 4, block.heads];
}

/**
 * Plans every layer.
 *
 * @throws TuckerdError `invalid` naming layer, rule and value: a layer that isn't there, ranks above their dimensions, a matrix that no
 * chosen layer has
 */
export function planLayers(
  blocks: readonly AttentionBlock[],
  feedForward: readonly FeedForwardBlock[],
  options: CompressionOptions,
): readonly LayerPlan[] {
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
  const plans = blocks.map((block): LayerPlan => {
    const override = options.overrides.get(block.layer);
    const ranks = override?.ranks;
    const skipped = override?.skip === true || (ranks === undefined && !chosen.has(block.layer));
    if (skipped || options.mode === "none") return { block, mode: "none", target: undefined, truncated: [] };
    const target: CompressionTarget = ranks === undefined ? options.target : { kind: "ranks", ranks };
    const truncated = matricesOf(block, feedForward).filter(({ matrix }) =>
      options.laser?.matrices.some((name) => matricesNamed(name).includes(matrix))
    );
    if (options.mode === "laser") {
      if (ranks !== undefined) throw noRanks(block, options.mode);
      return { block, mode: options.mode, target: undefined, truncated };
    }
    if (target.kind === "rate") throw new TypeError(`mode "${options.mode}" has no rate for its attention`);
    if (target.kind === "ranks") {
      if (options.mode === "auto") throw noRanks(block, options.mode);
      checkBlockRanks(block, target.ranks);
    }
    return { block, mode: options.mode, target, truncated };
  });
  checkNames(plans, options);
  return plans;
}

/** Every name that was given must mean something in a layer that is compressed. */
function checkNames(plans: readonly LayerPlan[], { laser }: CompressionOptions): void {
  const there = new Set(plans.flatMap(({ truncated }) => truncated.map(({ matrix }) => matrix)));
  const compressed = plans.filter(({ mode }) => mode !== "none");
  if (compressed.length === 0) return;
  for (const name of laser?.matrices ?? []) {
    if (matricesNamed(name).some((matrix) => there.has(matrix))) continue;
    throw new TuckerdError(
      "invalid",
      `laser: no layer that is compressed has ${
        name === "ffn" ? "a feed-forward network that was found" : `a matrix ${name}`
      }; ` +
        `found: ${there.size === 0 ? "none of the matrices asked for" : [...there].join(", ")}`,
      { fields: { name } },
    );
  }
}

function noRanks(block: AttentionBlock, mode: Mode): TuckerdError {
  return new TuckerdError(
    "invalid",
    `layer ${block.layer}: mode "${mode}" doesn't take ranks r1,r2,r3; give an energy or a compression ratio`,
  );
}

function checkBlockRanks(block: AttentionBlock, ranks: Ranks): void {
  checkRanks(tensorShape(block), ranks, { layer: block.layer, name: block.name });
}
