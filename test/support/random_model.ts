/**
 * A whole model with random factors, and the dense weights that they stand for.
 *
 * @module
 */
import { extractWeights, findAttention, rewriteFactored } from "../../src/attention/mod.ts";
import { headSizesDiffer } from "../../src/attention/form.ts";
import type { AttentionBlock, AttentionWeights, BlockForm } from "../../src/attention/types.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { randomFactors } from "./random_forms.ts";
import type { Numbers } from "./session.ts";

/** A rewritten model with what it is fed. */
export interface RandomModel {
  /** Takes its factors as inputs. */
  readonly rewritten: OnnxModel;
  readonly feeds: Readonly<Record<string, Numbers>>;
  /** Ranks by the names of the rewritten model's dimensions. */
  readonly ranks: Readonly<Record<string, number>>;
  /** Weights by layer, with which the original model computes the same. */
  readonly weights: ReadonlyMap<number, AttentionWeights>;
}

/** Random factors for the layers that have a form. */
export function withRandomFactors(
  model: OnnxModel,
  forms: ReadonlyMap<number, BlockForm>,
  random: () => number,
): RandomModel {
  const { model: rewritten, slots } = rewriteFactored(model, forms, { factors: "inputs" });
  const blocks = findAttention(model).blocks.filter(({ layer }) => forms.has(layer));
  const made = blocks.map((block) =>
    randomFactors(slots.filter(({ layer }) => layer === block.layer), {
      form: forms.get(block.layer)!,
      oneHeadSize: hasOneSize(block, forms.get(block.layer)!),
      ...extractWeights(model, block),
    }, random)
  );
  return {
    rewritten,
    feeds: Object.assign({}, ...made.map((each) => each.feeds)),
    ranks: Object.assign({}, ...made.map((each) => each.ranks)),
    weights: new Map(blocks.map(({ layer }, i) => [layer, made[i]!.weights])),
  };
}

/** Whether key and value heads have one size: the operator wants that, or the decomposition gives it, one subspace for both. */
function hasOneSize({ oneHeadSize }: AttentionBlock, form: BlockForm): true | undefined {
  return oneHeadSize || (form.queryKey === "reduced" && !headSizesDiffer(form)) || undefined;
}

/** The model with the same factors as initializers. */
export function closedModel(
  model: OnnxModel,
  forms: ReadonlyMap<number, BlockForm>,
  { feeds }: Pick<RandomModel, "feeds">,
): OnnxModel {
  return rewriteFactored(model, forms, {
    factors: "initializers",
    tensors: ({ name }) => ({ shape: feeds[name]!.shape, data: Float32Array.from(feeds[name]!.data) }),
  }).model;
}
