/**
 * The verdict on each anchor, as it is reported: found, or left, and why.
 *
 * @module
 */
import { nodeName, type NodeProto } from "../onnx/node.ts";
import type { LocatedBlock } from "./describe.ts";
import { type Lowering, originalOperator } from "./lower/restore.ts";
import type { AttentionOperator } from "./types.ts";

/** What became of the anchors, in their order. */
export function operatorsOf(
  anchors: readonly NodeProto[],
  { lowerings, blocks, left }: {
    readonly lowerings: readonly Lowering[];
    readonly blocks: readonly LocatedBlock[];
    /** Reasons of the anchors that are in no block. */
    readonly left: ReadonlyMap<NodeProto, string>;
  },
): AttentionOperator[] {
  return anchors.map((anchor) => ({
    node: nodeName(anchor),
    operator: originalOperator(lowerings, anchor),
    ...verdictOn(anchor, blocks, left),
  }));
}

/** What became of one anchor. */
function verdictOn(
  anchor: NodeProto,
  blocks: readonly LocatedBlock[],
  left: ReadonlyMap<NodeProto, string>,
): Pick<AttentionOperator, "verdict" | "layer" | "reason"> {
  const block = blocks.find(({ sites }) => sites.some((site) => site.anchor === anchor));
  if (block === undefined) return { verdict: "left", reason: left.get(anchor)! };
  const { queryKeyExpandedBecause, noLatentKeysBecause, valueOutputExpandedBecause } = block;
  const reasons = [
    ...queryKeyExpandedBecause === undefined ? [] : [`queries and keys run at full size: ${queryKeyExpandedBecause}`],
    ...queryKeyExpandedBecause === undefined || noLatentKeysBecause === undefined
      ? []
      : [`so do keys in the cache, z can't stand for them: ${noLatentKeysBecause}`],
    ...valueOutputExpandedBecause === undefined ? [] : [`values run at full size: ${valueOutputExpandedBecause}`],
  ];
  const reason = reasons.length === 0 ? {} : { reason: reasons.join("; ") };
  return { verdict: "found", layer: block.layer, ...reason };
}
