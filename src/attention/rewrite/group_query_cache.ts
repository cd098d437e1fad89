/**
 * The cache of a com.microsoft.GroupQueryAttention that is written as plain operators: heads of keys and values, or z, in the places that
 * the operator would give them.
 *
 * @module
 */
import { isLatent, makesKeys } from "../form.ts";
import type { GroupQuery } from "../group_query.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { resizeCache, writeEmptyCache } from "./caches.ts";
import { retypeCache } from "./fused_cache.ts";
import { keepCoefficients, latentKeys, metCoefficients } from "./group_query_rotation.ts";
import { freshLatent, latentHolder, latentSize } from "./latent_cache.ts";
import { padded, type Places } from "./positions.ts";
import { freshCoefficients } from "./rotation_cache.ts";
import type { SiteWriter } from "./site_writer.ts";

/** What a cache is written from. */
export interface CacheSources {
  readonly operator: GroupQuery;
  readonly places: Places;
  /** Heads of the new tokens, [B, G, T, ·]. */
  readonly heads: (name: CachedName) => string;
}

/**
 * Writes the cache, and returns what scores and contexts are taken with: keys and values of the positions seen, [B, G, S, ·]; where r2
 * numbers per head are made of z, or keys that the graph rotates before the operator, z itself, [B, 1, S, r].
 */
export function writeCaches(
  at: SiteWriter,
  form: BlockForm,
  { operator, places, heads }: CacheSources,
): Readonly<Record<CachedName, string>> {
  const holder = latentHolder(at, form, "value");
  const names = holder === "key" ? ["key"] as const : ["key", "value"] as const;
  const kept = makesKeys(form) && at.rotated.keepsCoefficients ? at.rotated.rotation.count : 0;
  const fresh = names.map((name): string => {
    if (!isLatent(form, name)) return heads(name);
    const size = latentSize(at, name);
    const z = freshLatent(at, form, name);
    const keeps = name === "key" && kept > 0;
    const width = !keeps ? size : typeof size === "number" ? size + kept : `${size} + ${kept}`;
    resizeCache(at, name, { heads: 1, size: width });
    if (!keeps) return z;
    const inside = at.rotated.rotation.inside;
    const parts = [z, inside ? metCoefficients(at, operator.rotary!, places) : freshCoefficients(at)];
    return at.node("Concat", parts, { label: "latent.rotated", attributes: { axis: -1n } });
  });
  const [key, ownValue] = place(at, names, { fresh, places });
  if (ownValue === undefined) writeEmptyCache(at, "value", key);
  retypeCache(at, at.site.fused!, form);
  if (kept > 0) keepCoefficients(at, seenOf(at, places, { all: key, from: -kept }));
  const seen = seenOf(at, places, { all: key, to: kept === 0 ? undefined : -kept });
  return {
    key: makesKeys(form) && at.rotated.rotation.inside ? latentKeys(at, form, { z: seen, operator }) : seen,
    value: ownValue === undefined ? seen : seenOf(at, places, { all: ownValue }),
  };
}

/** The positions seen of a cache, and of its numbers those from one place up to another. */
function seenOf(
  at: SiteWriter,
  { seen, size }: Places,
  { all, from = 0, to }: { readonly all: string; readonly from?: number; readonly to?: number | undefined },
): string {
  const at0 = (place: number): string => at.writer.integers([place]);
  const positions = seen === size ? [] : [{ start: at0(0), end: seen, axis: 2 }];
  const numbers = { start: at0(from), end: at0(to ?? Number.MAX_SAFE_INTEGER), axis: 3 };
  const cuts = from === 0 && to === undefined ? positions : [...positions, numbers];
  if (cuts.length === 0) return all;
  const list = (parts: readonly string[]): string =>
    parts.length === 1 ? parts[0]! : at.node("Concat", parts, { label: "seen.bounds", attributes: { axis: 0n } });
  const bounds = [cuts.map(({ start }) => start), cuts.map((cut) => cut.end)].map(list);
  const axes = at.writer.integers(cuts.map(({ axis }) => axis));
  return at.node("Slice", [all, ...bounds, axes], { label: "seen" });
}

/**
 * Keys and values of all positions, given out where the operator gave them. New ones are put behind the past where that is full;
 * otherwise they take the places in it that their row's length says, and what lies behind is never seen.
 */
function place(
  at: SiteWriter,
  names: readonly CachedName[],
  { fresh, places }: { readonly fresh: readonly string[]; readonly places: Places },
): readonly [string, ...string[]] {
  const { node, past } = at.site.fused!;
  const outputs = names.map((name) =>
    node.output[name === "key" ? 1 : 2] || at.writer.fresh(`${at.site.context}.present`)
  );
  const pasts = names.map((name) => past[name]);
  if (places.follows === undefined || !pasts.every((value) => value !== undefined)) {
    fresh.forEach((value, i) => at.node("Identity", [value], { label: "present", output: outputs[i]! }));
    return fresh as [string, ...string[]];
  }
  const joined = (): string[] =>
    pasts.map((value, i) => at.node("Concat", [value, fresh[i]!], { label: "present", attributes: { axis: 2n } }));
  const placed = (): string[] => {
    const index = at.reshape(places.positions, [0, 1, -1, 1], { label: "places" });
    return pasts.map((value, i) => {
      const by = at.node("Sub", [places.size, at.size(value, 2)], { label: "past.missing" });
      const shape = at.node("Shape", [fresh[i]!], { label: "fresh.shape" });
      const where = at.node("Expand", [index, shape], { label: "places.all" });
      const buffer = padded(at, value, { axis: 2, by });
      return at.node("ScatterElements", [buffer, where, fresh[i]!], { label: "present", attributes: { axis: 2n } });
    });
  };
  at.chooseAll(places.follows, { ifTrue: joined, ifFalse: placed }, { label: "presents", outputs });
  return outputs as [string, ...string[]];
}
