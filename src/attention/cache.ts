/**
 * What is known of the cache that a block's graph takes and gives: types, and whether z can take the place of its numbers.
 *
 * @module
 */
import { floatBytes } from "../onnx/tensor.ts";
import { isPlain } from "./rows.ts";
import type { Site } from "./site.ts";
import type { AttentionBlock, CachedName } from "./types.ts";

const PARTS = ["key", "value"] as const;

/** What a block says of its cache. */
export function describeCache(
  sites: readonly [Site, ...Site[]],
): Pick<AttentionBlock, "cacheNumberBytes" | "noLatentCacheBecause"> {
  const problem = latentProblem(sites);
  const cacheNumberBytes = floatBytes(cacheType(sites) ?? sites[0].query.projection.elementType);
  return { cacheNumberBytes, ...(problem === undefined ? {} : { noLatentCacheBecause: problem }) };
}

/** Whether key or value of a site is kept for later tokens. */
export function isCached(site: Site, name: CachedName): boolean {
  return pastOf(site, name) !== undefined || site.present[name] !== undefined;
}

/** The model's input with the past keys or values, which the graph or the operator puts before the new ones; undefined without one. */
export function pastOf(site: Site, name: CachedName): string | undefined {
  return site[name].past ?? site.fused?.past[name];
}

/** Element type of the past, or else of what the model gives out. */
function cacheType(sites: readonly Site[]): number | undefined {
  const infos = sites.flatMap((site) =>
    PARTS.flatMap((name) => [
      site.graph.input(pastOf(site, name) ?? ""),
      site.graph.proto.output.find((info) => info.name === site.present[name]),
    ])
  );
  return infos.map((info) => info?.type?.tensorType?.elemType ?? 0).find((type) => type !== 0);
}

function latentProblem(sites: readonly Site[]): string | undefined {
  if (!sites.some((site) => PARTS.some((name) => isCached(site, name)))) return "the graph has no key-value cache";
  const stays = sites.find(({ operatorStaysBecause }) => operatorStaysBecause !== undefined)?.operatorStaysBecause;
  if (stays !== undefined) return stays;
  const turned = sites.some(({ query, key, value }) =>
    [query, key, value].some(({ order }) => order && !isPlain(order))
  );
  if (turned) return "its rows aren't in the order [batch, positions]";
  const missing = PARTS.find((name) => sites.some((site) => site.present[name] === undefined && !site[name].fromCache));
  return missing === undefined ? undefined : `the graph doesn't give its ${missing} cache out wherever the layer runs`;
}
