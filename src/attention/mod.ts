/**
 * Attention in a graph: find the blocks, take their weights out, and write the graph again with factors or with other
 * weights. Passes return new models; the given one is never changed.
 *
 * @module
 */
export { findAttention, type FoundAttention } from "./find.ts";
export {
  type CacheSizes,
  chooseForm,
  chooseLatent,
  coefficientKeepers,
  type FactorKind,
  type FormOptions,
  isReduced,
  makesKeys,
  structureKey,
  withMergedOutput,
} from "./form.ts";
export { rewriteDense } from "./rewrite/dense.ts";
export type { LaterWeights } from "./rewrite/dense_tensors.ts";
export { repeatsDiffer, repeatsHeads } from "./rewrite/repeats_differ.ts";
export { type FactoredModel, type FactorSource, rewriteFactored } from "./rewrite/factored.ts";
export { type ExtractedWeights, extractWeights } from "./weights.ts";
export * from "./types.ts";
export type { FactorNumbers } from "./rewrite/writer.ts";
