/**
 * What is said of a block, from the places where it runs.
 *
 * @module
 */
import { nodeName } from "../onnx/node.ts";
import { describeCache } from "./cache.ts";
import { familyOf } from "./families/judge.ts";
import { groupsOf } from "./groups.ts";
import { describeRotation, type KeyRotation, type RotationReader } from "./rotation.ts";
import type { Site } from "./site.ts";
import type { Twin } from "./twins.ts";
import type { AttentionBlock } from "./types.ts";

/** A block with the places where it runs: several where layers share their weights or branches repeat them. */
export interface LocatedBlock extends AttentionBlock {
  readonly sites: readonly [Site, ...Site[]];
  /** Where else its matrices are used, in the graph of the first site. */
  readonly twins: readonly Twin[];
  /** What each site does to its keys; undefined where that isn't known of one, or where there is no cache to tell it for. */
  readonly rotations?: readonly KeyRotation[];
}

/** Describes a block. */
export function describe(
  reader: RotationReader,
  sites: readonly [Site, ...Site[]],
  { layer, twins }: { readonly layer: number; readonly twins: readonly Twin[] },
): LocatedBlock {
  const { tracer } = reader;
  const [first] = sites;
  const { query, key, value } = first;
  const queryKey = sites.find((site) => site.queryKeyExpandedBecause !== undefined)?.queryKeyExpandedBecause ??
    twinReason(twins, ["query", "key"]);
  const valueOutput = sites.find((site) => site.valueOutputExpandedBecause !== undefined)?.valueOutputExpandedBecause ??
    twinReason(twins, ["value"]);
  const cached = (part: "key" | "value"): number => {
    const name = first[part].past ?? first.present[part];
    if (name === undefined) return 0;
    // Some graphs cache what they have repeated already.
    const stored = tracer.value(first.graph, name).shape;
    const heads = stored?.length === 4 ? stored[1]! : groupsOf(first[part]);
    return heads * first[part].headSize;
  };
  const cache = describeCache(sites);
  const known = twins.length === 0 && cache.noLatentCacheBecause === undefined;
  return {
    layer,
    name: blockName(first, layer),
    family: familyOf(first.anchor),
    hiddenSize: query.projection.rows,
    heads: query.heads,
    keyValueHeads: Math.max(groupsOf(key), groupsOf(value)),
    headSize: query.headSize,
    ...(queryKey === undefined ? {} : { queryKeyExpandedBecause: queryKey }),
    ...(valueOutput === undefined ? {} : { valueOutputExpandedBecause: valueOutput }),
    ...(sites.some(({ valueBiasInside }) => valueBiasInside) ? { valueBiasInside: true } : {}),
    ...(sites.some(({ value }) => value.norm !== undefined) ? { valueNormed: true } : {}),
    ...(sites.some(({ fused }) => fused?.oneHeadSize) ? { oneHeadSize: true } : {}),
    cacheNumbersPerToken: cached("key") + cached("value"),
    ...cache,
    ...(known ? describeRotation(reader, sites) : {}),
    sites,
    twins,
  };
}

/** Why a block whose matrices are used on constants too must stay: factors are written beside it only, and for every head. */
export function twinProblem([site]: readonly [Site, ...Site[]], twins: readonly Twin[]): string | undefined {
  const far = twins.find(({ projection, names }) =>
    projection.graph !== site.graph || names.some((name) => groupsOf(site[name]) < site.query.heads)
  );
  return far &&
    `${nodeName(far.projection.node)} uses its ${far.names} matrix too, in another graph or by groups of heads`;
}

/** Why a space must be expanded because a matrix of it is used on constants too, which knows of no small space. */
function twinReason(twins: readonly Twin[], parts: readonly string[]): string | undefined {
  const twin = twins.find(({ names }) => names.some((name) => parts.includes(name)));
  return twin && `${nodeName(twin.projection.node)} projects constants with its ${twin.names} matrix`;
}

/** What the names of the block's nodes have in common, with dots: `bert.encoder.layer.0.attention`. */
function blockName(site: Site, layer: number): string {
  const paths = [site.anchor, site.query.projection.node, site.output.projection.node]
    .map((node) => node.name.split("/").filter((part) => part !== "").slice(0, -1));
  const [first, ...others] = paths;
  const differs = first!.findIndex((part, i) => others.some((path) => path[i] !== part));
  const common = first!.slice(0, differs === -1 ? first!.length : differs);
  return common.length === 0 ? `attention.${layer}` : common.join(".");
}
