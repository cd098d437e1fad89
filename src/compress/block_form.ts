/**
 * The form in which a block runs, by what it was decomposed into.
 *
 * @module
 */
import { type AttentionBlock, type BlockForm, chooseForm } from "../attention/mod.ts";
import { MATRICES, type MatrixName } from "../attention/types.ts";
import { lowRankSaves } from "../tucker/mod.ts";
import type { LayerFactors } from "../tucker/types.ts";
import { storedShape } from "./matrices.ts";
import type { Sketch } from "./sketch.ts";

/**
 * How a decoder's cache is kept: in the model's own shapes (`full`), in r2 numbers per head (`per-head`), or layer by layer as
 * the smaller of that and the latent z (`compressed`).
 */
export type CacheKind = "full" | "per-head" | "compressed";

/** How a block runs with these factors: a truncated matrix as one where two would be larger. */
export function formOf(block: AttentionBlock, factors: Sketch<LayerFactors>, kind: CacheKind): BlockForm {
  const cache = kind === "full" ? "full" : "compressed";
  if (factors.kind === "tucker4") return chooseForm(block, factors.kind, { r3: factors.factors.ranks[2], cache });
  const matrices = Object.keys(factors.matrices) as MatrixName[];
  const form = chooseForm(block, factors.kind, { matrices, cache });
  if (factors.kind === "tucker3") return form;
  const dense = MATRICES.filter((name) => {
    const truncated = factors.matrices[name];
    return truncated !== undefined && !lowRankSaves(storedShape(block, name), truncated.rank);
  });
  return { ...form, ...Object.fromEntries(dense.map((name) => [name, "dense"])) };
}
