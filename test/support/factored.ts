/**
 * A model with some blocks rewritten to factors, and the factors to feed: for tests that compare executions.
 *
 * @module
 */
import { chooseForm, extractWeights, findAttention, rewriteFactored } from "../../src/attention/mod.ts";
import { canBeLatent } from "../../src/attention/form.ts";
import type { AttentionBlock, BlockForm } from "../../src/attention/types.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import type { Numbers } from "./session.ts";
import { type ReferenceTucker, tuckerFactor } from "./tucker_reference.ts";

/** A rewritten model with what it is fed. */
export interface FactoredModel {
  readonly model: OnnxModel;
  readonly feeds: Readonly<Record<string, Numbers>>;
  /** Named dimensions of a compressed cache. */
  readonly sizes: Readonly<Record<string, number>>;
}

/** What a decoder's cache holds: numbers at full size, r2 numbers per head, or z. */
export type CacheOfFactored = "full" | "compressed" | "latent";

/** Rewrites the layers in `factors` to take them as inputs. */
export function factored(
  model: OnnxModel,
  factors: ReadonlyMap<number, ReferenceTucker>,
  cache: CacheOfFactored = "full",
): FactoredModel {
  const { blocks } = findAttention(model);
  const forms = new Map<number, BlockForm>(
    [...factors].map(([layer, { ranks }]) => [layer, factoredForm(blocks[layer]!, ranks[2], cache)]),
  );
  const rewritten = rewriteFactored(model, forms, { factors: "inputs" });
  const feeds = rewritten.slots.map((slot) => {
    const block = blocks[slot.layer]!;
    const { biases: { value, ...others } } = extractWeights(model, block);
    // Where values carry their bias, the output's is its own alone.
    const folded = value === undefined || (block.valueBiasInside && slot.role === "output.bias") ? {} : { value };
    const biases = { ...others, ...folded };
    const groups = forms.get(slot.layer)!.keyValueHeads;
    return [slot.name, tuckerFactor(slot, factors.get(slot.layer)!, { biases, groups })] as const;
  });
  const sizes = [...factors].flatMap(([layer, { ranks: [r1, r2] }]) => [
    [`layer${layer}.key.r2`, r2],
    [`layer${layer}.value.r2`, r2],
    [`layer${layer}.r1`, r1],
  ]);
  return { model: rewritten.model, feeds: Object.fromEntries(feeds), sizes: Object.fromEntries(sizes) };
}

/** The form of a 4-D Tucker block. `latent`: z in the cache wherever it can be, also where that isn't smaller. Blocks without a cache run as ever. */
export function factoredForm(block: AttentionBlock, r3: number, cache: CacheOfFactored): BlockForm {
  if (cache !== "latent" || block.cacheNumbersPerToken === 0) {
    return chooseForm(block, "tucker4", { r3, cache: cache === "full" ? "full" : "compressed" });
  }
  const form = chooseForm(block, "tucker4", { r3, cache: "compressed" });
  return { ...form, latent: (["key", "value"] as const).filter((name) => canBeLatent(block, form, name)) };
}
