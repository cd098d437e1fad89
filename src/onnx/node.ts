/**
 * Reading and making nodes: attributes by name and type.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  type ValueInfoProto,
} from "./gen/onnx_pb.ts";

export type { GraphProto, NodeProto, TensorProto, ValueInfoProto } from "./gen/onnx_pb.ts";

/** Values that `makeNode` takes as attributes. Integers are given as bigint, so that 1 and 1.0 stay apart. */
export type AttributeValue = bigint | number | string | readonly bigint[] | TensorProto | GraphProto;

/** Operator of a node with its domain, where that isn't the standard one: `MatMul`, `com.microsoft.Attention`. */
export function operatorOf(node: NodeProto): string {
  return node.domain === "" || node.domain === "ai.onnx" ? node.opType : `${node.domain}.${node.opType}`;
}

/** Name of a node, or its first output where it has none. */
export function nodeName(node: NodeProto): string {
  return node.name !== "" ? node.name : node.output[0] ?? node.opType;
}

/** An integer attribute, or `fallback` where the node has none. */
export function intAttribute(node: NodeProto, name: string, fallback: number): number {
  const attribute = find(node, name);
  return attribute === undefined ? fallback : Number(attribute.i);
}

/** A list of integers, or undefined where the node has none. */
export function intsAttribute(node: NodeProto, name: string): number[] | undefined {
  return find(node, name)?.ints.map(Number);
}

/** A real attribute, or `fallback` where the node has none. */
export function floatAttribute(node: NodeProto, name: string, fallback: number): number {
  return find(node, name)?.f ?? fallback;
}

/** A list of reals, or undefined where the node has none. */
export function floatsAttribute(node: NodeProto, name: string): readonly number[] | undefined {
  return find(node, name)?.floats;
}

/** A string attribute, or undefined where the node has none. */
export function stringAttribute(node: NodeProto, name: string): string | undefined {
  const attribute = find(node, name);
  return attribute === undefined ? undefined : new TextDecoder().decode(attribute.s);
}

/** A tensor attribute, or undefined where the node has none. */
export function tensorAttribute(node: NodeProto, name: string): TensorProto | undefined {
  return find(node, name)?.t;
}

/** The subgraphs of a node (branches of If, bodies of Loop and Scan), by attribute name. */
export function* subgraphsOf(node: NodeProto): Generator<{ attribute: string; graph: GraphProto }> {
  for (const attribute of node.attribute) {
    if (attribute.g !== undefined) yield { attribute: attribute.name, graph: attribute.g };
    for (const graph of attribute.graphs) yield { attribute: attribute.name, graph };
  }
}

/** A new node. */
export function makeNode(
  opType: string,
  inputs: readonly string[],
  outputs: readonly string[],
  options: {
    readonly name?: string;
    readonly domain?: string;
    readonly attributes?: Readonly<Record<string, AttributeValue>>;
  } = {},
): NodeProto {
  return create(NodeProtoSchema, {
    opType,
    input: [...inputs],
    output: [...outputs],
    name: options.name ?? outputs[0] ?? opType,
    ...(options.domain === undefined ? {} : { domain: options.domain }),
    attribute: Object.entries(options.attributes ?? {}).map(([name, value]) => makeAttribute(name, value)),
  });
}

/** A graph for a branch: it has no inputs, and reads values of the graphs around it by name. */
export function makeGraph(
  name: string,
  node: readonly NodeProto[],
  output: readonly ValueInfoProto[],
): GraphProto {
  return create(GraphProtoSchema, { name, node: [...node], output: [...output] });
}

function makeAttribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === "bigint") return create(AttributeProtoSchema, { name, type: Kind.INT, i: value });
  if (typeof value === "number") return create(AttributeProtoSchema, { name, type: Kind.FLOAT, f: value });
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: Kind.STRING, s: new TextEncoder().encode(value) });
  }
  if ("node" in value) return create(AttributeProtoSchema, { name, type: Kind.GRAPH, g: value });
  if ("dims" in value) return create(AttributeProtoSchema, { name, type: Kind.TENSOR, t: value });
  return create(AttributeProtoSchema, { name, type: Kind.INTS, ints: [...value] });
}

function find(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((attribute) => attribute.name === name);
}
