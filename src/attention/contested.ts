/**
 * Projections that serve more than one attention: differential attention (two softmaxes over one value), keys and values
 * that later layers read again, scores that are taken twice; or one attention in two ways, as where keys are the values too.
 * Each place alone looks like attention, but their weights can't be replaced one by one.
 *
 * @module
 */
import { nodeName, type NodeProto } from "../onnx/node.ts";
import type { Site } from "./site.ts";

/** Columns (of the output, rows) of a projection that a site uses. */
interface Claim {
  readonly site: Site;
  readonly part: "query" | "key" | "value" | "output";
  readonly columns: Int32Array;
}

/** The sites that share columns of a projection with another one, or use them twice, each with the reason. */
export function contestedSites(sites: readonly Site[]): ReadonlyMap<Site, string> {
  const claims = new Map<NodeProto, Claim[]>();
  const contested = new Map<Site, string>();
  for (const site of sites) {
    for (const { node, ...claim } of claimsOf(site)) {
      const others = claims.get(node) ?? [];
      for (const other of others) {
        if (!overlap(claim.columns, other.columns)) continue;
        if (!contested.has(site)) contested.set(site, reasonOf(node, claim, other));
        if (!contested.has(other.site)) contested.set(other.site, reasonOf(node, other, claim));
      }
      claims.set(node, [...others, claim]);
    }
  }
  return contested;
}

/** Sets are made only where two sites meet: in most models none do, and sets of all layers' columns would fill the heap. */
function overlap(a: Int32Array, b: Int32Array): boolean {
  const columns = new Set(a);
  return b.some((column) => columns.has(column));
}

function claimsOf(site: Site): (Claim & { readonly node: NodeProto })[] {
  const { output } = site;
  const views = (["query", "key", "value"] as const).filter((part) => !site[part].fromCache);
  return [
    ...views.map((part) => ({
      site,
      part,
      node: site[part].projection.node,
      columns: site[part].columns,
    })),
    { site, part: "output", node: output.projection.node, columns: output.rows },
  ];
}

function reasonOf(node: NodeProto, { site: own, part }: Claim, { site, part: otherPart }: Claim): string {
  const where = site === own ? "" : ` of ${nodeName(site.anchor)}`;
  return `its ${part} projection ${nodeName(node)} is ${
    where === "" ? "its" : "the"
  } ${otherPart} projection${where} too`;
}
