/**
 * Whether a value holds truth values or numbers, from the operators that make it.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, type NodeProto, tensorAttribute } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import { isElementwise } from "./arithmetic.ts";
import { isMovement } from "./movement.ts";

/** Operators that give truth values whatever they read. */
const TESTS = new Set([
  ...["And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "IsInf"],
]);

/** Whether a value is boolean; undefined where that isn't known. */
export function isBoolean(graph: Graph, name: string): boolean | undefined {
  const scope = graph.scopeOf(name);
  if (scope === undefined) return undefined;
  const type = scope.initializer(name)?.dataType ?? (scope.input(name)?.type?.tensorType?.elemType || undefined);
  if (type !== undefined) return type === DataType.BOOL;
  const node = scope.producer(name);
  return node && booleanFrom(scope, node);
}

function booleanFrom(graph: Graph, node: NodeProto): boolean | undefined {
  const { opType } = node;
  if (TESTS.has(opType)) return true;
  if (opType === "Cast") return intAttribute(node, "to", DataType.FLOAT) === DataType.BOOL;
  if (opType === "Constant" || opType === "ConstantOfShape") {
    return tensorAttribute(node, "value")?.dataType === DataType.BOOL;
  }
  if (opType === "Where") return isBoolean(graph, node.input[1]!);
  if (isMovement(node) || opType === "Trilu") return isBoolean(graph, node.input[0]!);
  return isElementwise(node) ? false : undefined;
}
