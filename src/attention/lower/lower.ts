/**
 * Operators that do several things at once, written as the plain ones that finder and rewriters read: Einsum as a matrix
 * product, quantised operators as their real counterparts between dequantisation and quantisation, a softmax in steps as one operator.
 *
 *     Einsum("bld,dnh->blnh")  →  MatMul, Reshape
 *     QLinearMatMul            →  DequantizeLinear (twice), MatMul, QuantizeLinear
 *
 * This is for reading only: what a rewrite doesn't touch goes back to the operator of the file (`restore.ts`).
 *
 * @module
 */
import { Graph } from "../../onnx/graph.ts";
import { type NodeProto, operatorOf } from "../../onnx/node.ts";
import { ModelWriter } from "../rewrite/writer.ts";
import { knownConstant } from "../trace/constants.ts";
import { probeRuns } from "../trace/evaluate.ts";
import { lowerEinsum } from "./einsum.ts";
import { QUANTISED } from "./quantised.ts";
import type { LoweredGraph, Lowering } from "./restore.ts";
import type { Rule } from "./rule.ts";
import { isWrittenSoftmax, lowerWrittenSoftmax } from "./softmax.ts";

const RULES: Readonly<Record<string, Rule>> = {
  "Einsum": lowerEinsum,
  "Div": lowerWrittenSoftmax,
  "Mul": lowerWrittenSoftmax,
  ...QUANTISED,
};

/** Operators that most graphs have, and which of them are candidates: a probe of the graph costs more than a look. */
const CANDIDATES: Readonly<Record<string, (graph: Graph, node: NodeProto) => boolean>> = {
  "Div": isWrittenSoftmax,
  "Mul": isWrittenSoftmax,
};

/** The graph with every operator lowered that has a rule; the very same graph where none has. */
export function lower(graph: Graph, folder: string): LoweredGraph {
  const candidates = [...graph.all()].flatMap((scope) =>
    scope.proto.node.flatMap((node) => {
      const operator = operatorOf(node);
      const rule = RULES[operator];
      return rule === undefined || CANDIDATES[operator]?.(scope, node) === false ? [] : [{ scope, node, rule }];
    })
  );
  if (candidates.length === 0) return { graph, lowerings: [] };
  const runs = probeRuns(graph, folder);
  const [run] = runs;
  const writer = new ModelWriter({ graph });
  const shared = new Map<string, string>();
  const lowerings = candidates.flatMap(({ scope, node, rule }): Lowering[] => {
    const nodes = rule(node, {
      graph: scope,
      value: (name) => run.value(scope, name),
      fixedSizes: (name) => {
        const [first, second] = runs.map((each) => each.value(scope, name).shape);
        return first?.map((size, i) => size === second?.[i] ? size : undefined) ?? [];
      },
      numbers: (name) => knownConstant(scope, name, folder),
      fresh: (wanted) => writer.fresh(wanted),
      integers: (values) => writer.integers(values),
      initializer: (tensor) => writer.initializer(tensor),
      shared: (of, key, make) => {
        const full = `${of} ${key}`;
        let name = shared.get(full);
        if (name === undefined) {
          shared.set(full, name = writer.fresh(`${of}.${key}`));
          for (const each of make(name)) writer.put(scope.scopeOf(of)!, each);
        }
        return name;
      },
    });
    if (nodes === undefined) return [];
    for (const each of nodes) writer.put(scope, each);
    return [{ original: node, nodes }];
  });
  if (lowerings.length === 0) return { graph, lowerings };
  // What only the operators of the file read is kept for them.
  return { graph: new Graph(writer.graph("kept")), lowerings };
}
