/**
 * Softmax written out: what ONNX Runtime's optimiser saves of float16 models, and what converters from JAX write.
 *
 *     e = Exp(x − m);  Div(e, ReduceSum(e))   →  Softmax(x − m)      m, a maximum as a rule, is one number a row
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, intsAttribute, makeNode, nodeName, type NodeProto } from "../../onnx/node.ts";
import type { Surroundings } from "./rule.ts";

/** Whether a node divides exponentials by their sum, over whatever axes. */
export function isWrittenSoftmax(graph: Graph, node: NodeProto): boolean {
  return partsOf(graph, node) !== undefined;
}

/** Lowers a Div, or a Mul by a Reciprocal; undefined where the sum doesn't run over the last axis alone, and keep it. */
export function lowerWrittenSoftmax(node: NodeProto, at: Surroundings): readonly NodeProto[] | undefined {
  const parts = partsOf(at.graph, node);
  const shape = parts && at.value(parts.exponent).shape;
  if (parts === undefined || shape === undefined || intAttribute(parts.sum, "keepdims", 1) !== 1) return undefined;
  const axes = intsAttribute(parts.sum, "axes") ?? Array.from(at.value(parts.sum.input[1] ?? "").data ?? []);
  const [axis, ...more] = axes;
  const last = shape.length - 1;
  if (axis === undefined || more.length > 0 || (axis !== -1 && axis !== last)) return undefined;
  return [makeNode("Softmax", [parts.exponent], node.output, { name: nodeName(node), attributes: { axis: -1n } })];
}

/** What is exponentiated, and the node that sums it up. */
function partsOf(
  graph: Graph,
  node: NodeProto,
): { readonly exponent: string; readonly sum: NodeProto } | undefined {
  const [first, second] = node.input;
  const places = node.opType === "Div" ? [[first, second]] : [[first, second], [second, first]];
  for (const [numerator, other] of places) {
    const divisor = node.opType === "Div" ? other : producerOf(graph, other, "Reciprocal")?.input[0];
    const sum = producerOf(graph, divisor, "ReduceSum");
    const exponential = producerOf(graph, numerator, "Exp");
    if (sum === undefined || exponential === undefined || sum.input[0] !== numerator) continue;
    return { exponent: exponential.input[0]!, sum };
  }
  return undefined;
}

function producerOf(graph: Graph, name: string | undefined, opType: string): NodeProto | undefined {
  const node = name === undefined ? undefined : graph.producer(name);
  return node?.opType === opType ? node : undefined;
}
