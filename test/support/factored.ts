/**
 * A model with some blocks rewritten to factors, and the factors to feed: for tests that compare executions.
 *
 * @module
 */
import { chooseForm, extractWeights, findAttention, rewriteFactored } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
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

/** Rewrites the layers in `factors` to take them as inputs. */
export function factored(
  model: OnnxModel,
  factors: ReadonlyMap<number, ReferenceTucker>,
  cache: "full" | "compressed" = "full",
): FactoredModel {
  const { blocks } = findAttention(model);
  const forms = new Map<number, BlockForm>(
    [...factors].map(([layer, { ranks }]) => [layer, chooseForm(blocks[layer]!, "tucker4", { r3: ranks[2], cache })]),
  );
  const rewritten = rewriteFactored(model, forms, { factors: "inputs" });
  const feeds = rewritten.slots.map((slot) => {
    const { biases } = extractWeights(model, blocks[slot.layer]!);
    const groups = forms.get(slot.layer)!.keyValueHeads;
    return [slot.name, tuckerFactor(slot, factors.get(slot.layer)!, { biases, groups })] as const;
  });
  const sizes = [...factors].flatMap(([layer, { ranks: [, r2] }]) => [
    [`layer${layer}.key.r2`, r2],
    [`layer${layer}.value.r2`, r2],
  ]);
  return { model: rewritten.model, feeds: Object.fromEntries(feeds), sizes: Object.fromEntries(sizes) };
}
