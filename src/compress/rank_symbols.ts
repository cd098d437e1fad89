/**
 * Sizes of slots that name a rank: `layer0.key.r2`, or `4*layer0.key.r2`.
 *
 * @module
 */
import type { FactorNumbers, FactorSlot } from "../attention/mod.ts";

/** The ranks that slots name, as the tensors have them: a file's caches are of fixed sizes. */
export function rankSizes(
  slots: readonly FactorSlot[],
  tensors: ReadonlyMap<string, FactorNumbers>,
): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const { name, shape } of slots) {
    for (const [axis, size] of shape.entries()) {
      if (typeof size !== "string") continue;
      const { count, rank } = symbolOf(size);
      sizes.set(rank, tensors.get(name)!.shape[axis]! / count);
    }
  }
  return sizes;
}

/** `4*layer0.key.r2`: four times a rank. */
export function symbolOf(size: string): { readonly count: number; readonly rank: string } {
  const [, count = "1", rank] = /^(?:(\d+)\*)?(.+)$/.exec(size)!;
  return { count: Number(count), rank: rank! };
}
