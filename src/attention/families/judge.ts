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

/** Operators that do attention, and aren't taken apart. */
function notTaken(_tracer: Tracer, _graph: Graph, node: NodeProto): Verdict {
  const operator = operatorOf(node);
  if (node.opType === "LinearAttention") {
    return { reason: `${operator} has no softmax: its queries meet a state that keys and values were added up in` };
  }
  return { reason: `${operator} isn't taken apart yet` };
}

/** Anchor operators and the family that judges them. */
const FAMILIES: Readonly<Record<string, { readonly name: string; readonly judge: Family }>> = {
  "Softmax": { name: "softmax", judge: findAtSoftmax },
  "com.microsoft.BiasSoftmax": { name: "softmax", judge: notTaken },
  "com.microsoft.Attention": { name: "fused", judge: findAtAttention },
  "com.microsoft.MultiHeadAttention": { name: "fused", judge: findAtOperator },
  "com.microsoft.GroupQueryAttention": { name: "fused", judge: findAtOperator },
  "Attention": { name: "fused", judge: findAtOperator },
};

/** The family of an anchor; undefined for other nodes. What calls itself attention is never passed over in silence. */
function familyAt(node: NodeProto): (typeof FAMILIES)[string] | undefined {
  return FAMILIES[operatorOf(node)] ??
    (node.opType.endsWith("Attention") ? { name: "fused", judge: notTaken } : undefined);
}

/** Whether attention is looked for at a node. */
export function isAnchor(node: NodeProto): boolean {
  return familyAt(node) !== undefined;
}

/** The name of the family that an anchor belongs to. */
export function familyOf(anchor: NodeProto): string {
  return familyAt(anchor)!.name;
}

/** The verdict on every anchor, in execution order. */
export function judgeAll(tracer: Tracer, graph: Graph): [NodeProto, Verdict][] {
  const judged: [NodeProto, Verdict][] = [];
  for (const scope of graph.all()) {
    for (const node of inOrder(scope.proto.node)) {
      const family = familyAt(node);
      if (family === undefined) continue;
      judged.push([node, family.judge(tracer, scope, node)]);
      tracer.forgetUnused();
    }
  }
  return judged;
}
