/**
 * The way back from lowered operators to those of the file.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { type NodeProto, operatorOf } from "../../onnx/node.ts";

/** An operator of the file, and the plain ones that compute the same; the last makes its output. */
export interface Lowering {
  readonly original: NodeProto;
  readonly nodes: readonly NodeProto[];
}

/** A graph in plain operators. */
export interface LoweredGraph {
  readonly graph: Graph;
  readonly lowerings: readonly Lowering[];
}

/** A lowering with the scope in which it stands. */
export type PlacedLowering = Lowering & { readonly scope: Graph };

/** The lowerings of a graph, each with its scope. */
export function placedLowerings({ graph, lowerings }: LoweredGraph): PlacedLowering[] {
  if (lowerings.length === 0) return [];
  const byLast = new Map(lowerings.map((lowering) => [lowering.nodes.at(-1)!, lowering]));
  return [...graph.all()].flatMap((scope) =>
    scope.proto.node.flatMap((node) => {
      const lowering = byLast.get(node);
      return lowering === undefined ? [] : { ...lowering, scope };
    })
  );
}

/** The operator of the file that a node belongs to, with its domain: `com.microsoft.QLinearSoftmax` for the Softmax in it. */
export function originalOperator(lowerings: readonly Lowering[], node: NodeProto): string {
  return operatorOf(lowerings.find(({ nodes }) => nodes.includes(node))?.original ?? node);
}
