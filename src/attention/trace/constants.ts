/**
 * Constants of a graph: initializers, Constant nodes, and what exporters left unfolded between them and their reader
 * (Transpose, Cast, Slice, dequantisation…).
 *
 * @module
 */
import { TuckerdError } from "../../errors.ts";
import { release } from "../../release.ts";
import type { Graph } from "../../onnx/graph.ts";
import {
  floatAttribute,
  floatsAttribute,
  intAttribute,
  intsAttribute,
  nodeName,
  type NodeProto,
  operatorOf,
  tensorAttribute,
  type TensorProto,
} from "../../onnx/node.ts";
import {
  DataType,
  dataTypeName,
  isFloating,
  isInteger,
  isOwned,
  readFloats,
  readIntegers,
  sizeOf,
  tensorShape,
} from "../../onnx/tensor.ts";
import { isMovement, movementOf } from "./movement.ts";
import { dequantised, isQuantisation, quantised } from "./quantisation.ts";
import { broadcastIndex, broadcastShapes, DATA_LIMIT, type Value } from "./value.ts";

/** Numbers of a constant, row-major. */
export interface ConstantArray {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
  /** Nobody else holds the numbers: whoever asked for them may change them, and release them. */
  readonly owned: boolean;
}

/** What is known of a stored tensor: numbers only where they are few. */
export function tensorValue(tensor: TensorProto, folder: string): Value {
  const shape = tensorShape(tensor);
  const integer = !isFloating(tensor.dataType);
  // Strings and the rarer formats (float8 and their like) have no numbers here.
  const few = isReadable(tensor) && sizeOf(shape) <= DATA_LIMIT;
  const data = few ? integer ? readIntegers(tensor, folder) : readFloats(tensor, folder) : undefined;
  return { shape, data, integer, constant: true };
}

function isReadable({ dataType }: TensorProto): boolean {
  return isFloating(dataType) || isInteger(dataType);
}

/** What a Constant node holds. */
export function constantNodeArray(node: NodeProto, folder: string): ConstantArray | undefined {
  const tensor = tensorAttribute(node, "value");
  if (tensor !== undefined) return isReadable(tensor) ? tensorArray(tensor, folder) : undefined;
  for (const { name } of node.attribute) {
    if (name === "value_float") return { shape: [], data: [floatAttribute(node, name, 0)], owned: false };
    if (name === "value_int") return { shape: [], data: [intAttribute(node, name, 0)], owned: false };
    const list = name === "value_floats"
      ? floatsAttribute(node, name)
      : name === "value_ints"
      ? intsAttribute(node, name)
      : undefined;
    if (list !== undefined) return { shape: [list.length], data: list, owned: false };
  }
  return undefined;
}

/** All numbers of a stored tensor. */
function tensorArray(tensor: TensorProto, folder: string): ConstantArray {
  const data = isFloating(tensor.dataType) ? readFloats(tensor, folder) : readIntegers(tensor, folder);
  return { shape: tensorShape(tensor), data, owned: isOwned(tensor, data) };
}

/**
 * Evaluates a constant value of any size.
 *
 * @throws TuckerdError "unsupported" if an operator between the stored tensor and the value isn't known here.
 */
export function constantArray(graph: Graph, name: string, folder: string): ConstantArray {
  const result = knownConstant(graph, name, folder);
  if (result !== undefined) return result;
  const node = graph.producer(name);
  throw new TuckerdError(
    "unsupported",
    `the constant ${name} comes through ${node === undefined ? "no node" : operatorOf(node)}, which isn't understood`,
  );
}

/** Evaluates a constant value of any size, or undefined if an operator on the way to it isn't known here. */
export function knownConstant(graph: Graph, name: string, folder: string): ConstantArray | undefined {
  const tensor = graph.initializer(name);
  if (tensor !== undefined) return isReadable(tensor) ? tensorArray(tensor, folder) : undefined;
  const node = graph.producer(name);
  return node && evaluateConstant(graph, node, { name, folder });
}

function evaluateConstant(
  graph: Graph,
  node: NodeProto,
  wanted: { readonly name: string; readonly folder: string },
): ConstantArray | undefined {
  if (node.opType === "Constant") return constantNodeArray(node, wanted.folder);
  const inputs = node.input.map((name) => name === "" ? undefined : knownConstant(graph, name, wanted.folder));
  if (node.input.some((name, i) => name !== "" && inputs[i] === undefined)) return undefined;
  const result = isQuantisation(node)
    ? withQuantisation(graph, node, inputs)
    : computeConstant(node, inputs, wanted.name);
  for (const input of inputs) if (input?.owned && input.data !== result?.data) release(input.data);
  return result;
}

function computeConstant(
  node: NodeProto,
  inputs: readonly (ConstantArray | undefined)[],
  output: string,
): ConstantArray | undefined {
  const values = inputs.map((input) => input && { ...input, integer: false, constant: true });
  const movement = movementOf(node, values);
  if (movement !== undefined) {
    const { shape, index } = movement.outputs[node.output.indexOf(output)]!;
    const { data, owned } = movement.dataInputs.length === 1
      ? inputs[movement.dataInputs[0]!]!
      : { data: Float32Array.from(movement.dataInputs.flatMap((i) => Array.from(inputs[i]!.data))), owned: true };
    return index === undefined
      ? { shape, data, owned }
      : { shape, data: Float32Array.from(index(), (i) => data[i]!), owned: true };
  }
  return combineConstants(node, inputs);
}

function withQuantisation(
  graph: Graph,
  node: NodeProto,
  [x, scale, zeroPoint]: readonly (ConstantArray | undefined)[],
): ConstantArray | undefined {
  if (x === undefined || scale === undefined) return undefined;
  const by = { scale: scale.data, zeroPoint: zeroPoint?.data };
  const data = node.opType === "DequantizeLinear"
    ? dequantised(node, x, by)
    : quantised(node, x, { ...by, type: quantisedType(graph, node) });
  return data && { shape: x.shape, data, owned: true };
}

/** Element type of what a QuantizeLinear gives: its zero point's, or what its attribute says, or unsigned bytes. */
function quantisedType(graph: Graph, node: NodeProto): number {
  const zeroPoint = node.input[2] ?? "";
  const made = graph.producer(zeroPoint);
  const tensor = graph.initializer(zeroPoint) ??
    (made?.opType === "Constant" ? tensorAttribute(made, "value") : undefined);
  return tensor?.dataType ?? (intAttribute(node, "output_dtype", 0) || DataType.UINT8);
}

/** Why a constant can't be evaluated, as what follows its name; undefined if it can. */
export function constantProblem(graph: Graph, name: string): string | undefined {
  const scope = graph.scopeOf(name) ?? graph;
  const tensor = scope.initializer(name);
  if (tensor !== undefined) return typeProblem(tensor);
  const node = scope.producer(name);
  if (node === undefined) return "isn't a constant";
  const held = node.opType === "Constant" ? tensorAttribute(node, "value") : undefined;
  if (node.opType === "Constant") return held && typeProblem(held);
  if (!isMovement(node) && !isQuantisation(node) && !(node.opType in COMBINE)) {
    return `comes through ${operatorOf(node)} (${nodeName(node)}), which isn't understood`;
  }
  return node.input.map((input) => input === "" ? undefined : constantProblem(scope, input))
    .find((problem) => problem !== undefined);
}

function typeProblem(tensor: TensorProto): string | undefined {
  return isReadable(tensor) ? undefined : `is stored as ${dataTypeName(tensor.dataType)}, which isn't read`;
}

const COMBINE: Readonly<Record<string, (a: number, b: number) => number>> = {
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  Div: (a, b) => a / b,
};

function combineConstants(node: NodeProto, inputs: readonly (ConstantArray | undefined)[]): ConstantArray | undefined {
  const compute = COMBINE[node.opType];
  const [a, b] = inputs;
  if (compute === undefined || a === undefined || b === undefined) return undefined;
  const shape = broadcastShapes([a.shape, b.shape]);
  const [ia, ib] = [broadcastIndex(a.shape, shape), broadcastIndex(b.shape, shape)];
  return { shape, data: Float32Array.from(ia, (i, k) => compute(a.data[i]!, b.data[ib[k]!]!)), owned: true };
}
