/**
 * Key and value heads that share columns of the file: what takes their place may differ from head to head.
 *
 * @module
 */
import type { OnnxModel } from "../../onnx/model.ts";
import type { LocatedBlock } from "../describe.ts";
import { analyse, locatedBlock } from "../find.ts";
import type { AttentionBlock, AttentionWeights } from "../types.ts";

/** Whether key or value heads of a block share columns of the file: replacements of those may differ. */
export function repeatsHeads(model: OnnxModel, { layer }: AttentionBlock): boolean {
  const { sites: [site] } = locatedBlock(analyse(model), layer);
  return [site.key, site.value].some(({ columns }) => new Set(columns).size < columns.length);
}

/** Whether replacements of a block's key or value heads that share columns of the file differ, beyond rounding. */
export function repeatsDiffer(model: OnnxModel, { layer }: AttentionBlock, weights: AttentionWeights): boolean {
  return repeatsDifferIn(locatedBlock(analyse(model), layer), weights);
}

/** `repeatsDiffer` of a block that is found already. */
export function repeatsDifferIn(block: LocatedBlock, weights: AttentionWeights): boolean {
  const [site] = block.sites;
  return (["key", "value"] as const).some((name) => {
    const { columns } = site[name];
    const matrix = weights[name];
    const width = columns.length;
    const tolerance = 1e-5 * matrix.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const first = new Map<number, number>();
    columns.forEach((column, c) => first.has(column) || first.set(column, c));
    return columns.some((column, c) => {
      const of = first.get(column)!;
      if (of === c) return false;
      for (let r = 0; r < matrix.length; r += width) {
        if (!(Math.abs(matrix[r + c]! - matrix[r + of]!) <= tolerance)) return true;
      }
      return false;
    });
  });
}
