/**
 * Operators that do several things at once, written as the plain ones that finder and rewriters read: Einsum as a matrix
 * product, quantised operators as their real counterparts between dequantisation and quantisation.
 *
 *     Einsum("bld,dnh->blnh")  →  MatMul, Reshape
 *     QLinearMatMul            →  DequantizeLinear (twice), MatMul, QuantizeLinear
 *
 * This is for reading only: what a rewrite doesn't touch goes back to the operator of the file (`restore.ts`).
 *
 * @module
 */
import { Graph } from "../../onnx/graph.ts";
import { type NodeProto, operatorOf, type TensorProto } from "../../onnx/node.ts";
import { ModelWriter } from "../rewrite/writer.ts";
import { type ConstantArray, knownConstant } from "../trace/constants.ts";
import { probeRuns } from "../trace/evaluate.ts";
import type { Value } from "../trace/value.ts";
import { lowerEinsum } from "./einsum.ts";
import { QUANTISED } from "./quantised.ts";
import type { LoweredGraph, Lowering } from "./restore.ts";

/** What a rule may ask of the graph around its operator, and add to it. */
export interface Surroundings {
  readonly graph: Graph;
  /** What a probe run knows of a value. */
  value(name: string): Value;
  /** Sizes of a value that two probe runs with other inputs agree on; undefined in the other places. */
  fixedSizes(name: string): readonly (number | undefined)[];
  /** All numbers of a constant; undefined if an operator on the way to them isn't known. */
  numbers(name: string): ConstantArray | undefined;
  /** A name that nothing has yet. */
  fresh(wanted: string): string;
  /** Name of a constant list of integers. */
  integers(values: readonly number[]): string;
  /** Adds a constant. */
  initializer(tensor: TensorProto): void;
  /** A value made of the constant `of`, once for all who ask with the same key; `make` gives the nodes whose last makes `value`. */
  shared(of: string, key: string, make: (value: string) => readonly NodeProto[]): string;
}

/** The plain operators, or undefined where the operator stays as it is. */
export type Rule = (node: NodeProto, at: Surroundings) => readonly NodeProto[] | undefined;

const RULES: Readonly<Record<string, Rule>> = { "Einsum": lowerEinsum, ...QUANTISED };

/** The graph with every operator lowered that has a rule; the very same graph where none has. */
export function lower(graph: Graph, folder: string): LoweredGraph {
  const candidates = [...graph.all()].flatMap((scope) =>
    scope.proto.node.flatMap((node) => {
      const rule = RULES[operatorOf(node)];
      return rule === undefined ? [] : [{ scope, node, rule }];
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
