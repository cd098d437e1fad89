/**
 * Attention in functions of the model's own that couldn't be put in the place of their calls (`onnx/inline.ts`): told, not passed over.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { calledFunction, versionProblem } from "../../onnx/inline.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import type { NodeProto } from "../../onnx/node.ts";
import type { Verdict } from "../site.ts";
import { isAnchor } from "./judge.ts";

/** The calls of functions with attention in them, each with the reason why it stays. */
export function judgeCalls({ proto }: OnnxModel, graph: Graph): [NodeProto, Verdict][] {
  if (proto.functions.length === 0) return [];
  const attends = (nodes: readonly NodeProto[]): boolean =>
    nodes.some((node) => isAnchor(node) || attends(calledFunction(proto.functions, node)?.node ?? []));
  return [...graph.all()].flatMap((scope) =>
    scope.proto.node.flatMap((node): [NodeProto, Verdict][] => {
      const called = calledFunction(proto.functions, node);
      if (called === undefined || !attends(called.node)) return [];
      return [[node, { reason: versionProblem(proto, called)! }]];
    })
  );
}
