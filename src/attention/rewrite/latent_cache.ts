/**
 * Caches that hold z, what stands before the last factors of keys and values, [batch, 1, positions, r1 or r].
 *
 * @module
 */
import { isLatent, isReduced } from "../form.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { writeCache, writeEmptyCache } from "./caches.ts";
import { isJoint, writeJointLatent } from "./fused_cache.ts";
import { writeRotatedCache } from "./rotation_cache.ts";
import type { SiteWriter } from "./site_writer.ts";

/** z of all positions, [B, 1, S, r]. Where the key's cache holds that of values too, theirs has the same positions of no numbers. */
export function latentCache(at: SiteWriter, form: BlockForm, name: CachedName): string {
  const holder = latentHolder(at, form, name);
  const { fused } = at.site;
  const joint = fused !== undefined && isJoint(fused);
  const all = at.once(`${holder}.latent`, () => {
    const fresh = (): string => freshLatent(at, form, holder);
    const size = latentSize(at, holder);
    if (joint) return writeJointLatent(at, fused, { fresh: fresh(), size });
    return holder === "value" || isReduced(form, "key")
      ? writeCache(at, holder, fresh, { heads: 1, size })
      : writeRotatedCache(at, fresh, size);
  });
  if (name !== holder && !joint) writeEmptyCache(at, name, all);
  return all;
}

/**
 * Whose cache holds the z of key or value. Where both share it, that is the key's, and the value's has no numbers: clients that pass on
 * what they got, by shape, need not know.
 */
export function latentHolder(at: SiteWriter, form: BlockForm, name: CachedName): CachedName {
  const { key, value } = at.site;
  const shared = form.key === "shared" && form.value === "shared" && isLatent(form, "key") && isLatent(form, "value") &&
    key.projection.input === value.projection.input;
  return shared ? "key" : name;
}

/** z of the new tokens, [B, 1, T, r]. */
export function freshLatent(at: SiteWriter, form: BlockForm, holder: CachedName): string {
  const split = at.reshape(at.narrow(holder, form[holder]), [0, 0, 1, -1], { label: "latent.split" });
  return at.transpose(split, [0, 2, 1, 3], "latent");
}

/** Numbers of z, r1 or r. */
export function latentSize(at: SiteWriter, holder: CachedName): number | string {
  return at.slot(`${holder}.b`).shape[0]!;
}
