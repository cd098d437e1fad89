/**
 * The operators at which attention is looked for, and the family that judges each.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { type NodeProto, operatorOf } from "../../onnx/node.ts";
import { inOrder } from "../../onnx/order.ts";
import type { Verdict } from "../site.ts";
import type { Tracer } from "../trace/tracer.ts";
import { findAtAttention, findAtOperator } from "./fused.ts";
import { findAtSoftmax } from "./softmax.ts";

type Family = (tracer: Tracer, graph: Graph, anchor: NodeProto) => Verdict;

/** Attention operators that are known, but not taken apart. */
function notYet(_tracer: Tracer, _graph: Graph, node: NodeProto): Verdict {
  return { reason: `${operatorOf(node)} isn't taken apart yet` };
}

/** Anchor operators and the family that judges them. */
const FAMILIES: Readonly<Record<string, { readonly name: string; readonly judge: Family }>> = {
  "Softmax": { name: "softmax", judge: findAtSoftmax },
  "com.microsoft.Attention": { name: "fused", judge: findAtAttention },
  "com.microsoft.MultiHeadAttention": { name: "fused", judge: findAtOperator },
  "com.microsoft.GroupQueryAttention": { name: "fused", judge: findAtOperator },
  "Attention": { name: "fused", judge: findAtOperator },
  "com.microsoft.PackedAttention": { name: "fused", judge: notYet },
  "com.microsoft.PackedMultiHeadAttention": { name: "fused", judge: notYet },
  "com.microsoft.DecoderMaskedMultiHeadAttention": { name: "fused", judge: notYet },
};

/** The name of the family that an anchor belongs to. */
export function familyOf(anchor: NodeProto): string {
  return FAMILIES[operatorOf(anchor)]!.name;
}

/** The verdict on every anchor, in execution order. */
export function judgeAll(tracer: Tracer, graph: Graph): [NodeProto, Verdict][] {
  const judged: [NodeProto, Verdict][] = [];
  for (const scope of graph.all()) {
    for (const node of inOrder(scope.proto.node)) {
      const family = FAMILIES[operatorOf(node)];
      if (family === undefined) continue;
      judged.push([node, family.judge(tracer, scope, node)]);
      tracer.forgetUnused();
    }
  }
  return judged;
}
