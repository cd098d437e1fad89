/**
 * How one operator is lowered.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import type { NodeProto, TensorProto } from "../../onnx/node.ts";
import type { ConstantArray } from "../trace/constants.ts";
import type { Value } from "../trace/value.ts";

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
