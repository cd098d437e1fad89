/**
 * Writes a graph node by node, with names of its own.
 *
 * @module
 */
import { type AttributeValue, makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { seeded } from "./random_tucker.ts";

/** Nodes and initializers under construction. */
export class GraphWriter {
  readonly nodes: NodeProto[] = [];
  readonly tensors: TensorProto[] = [];
  readonly #random = seeded(5);
  #count = 0;

  /** @param type of weights and streams */
  constructor(readonly type: number) {}

  /** Adds a node of the standard's operators, or of ONNX Runtime's where they have no such one, and returns its output's name. */
  node(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    output = `v${this.#count++}`,
  ): string {
    return this.nodeOf(opType === "FusedMatMul" ? "com.microsoft" : "", opType, { inputs, attributes, output });
  }

  /** Adds a node of a domain's operators. */
  nodeOf(
    domain: string,
    opType: string,
    { inputs, attributes, output = `v${this.#count++}` }: {
      readonly inputs: readonly string[];
      readonly attributes: Readonly<Record<string, AttributeValue>>;
      readonly output?: string;
    },
  ): string {
    this.nodes.push(makeNode(opType, inputs, [output], { name: `${opType}.${output}`, domain, attributes }));
    return output;
  }

  /** Int64 numbers in one dimension. */
  integers(...values: readonly number[]): string {
    const name = `c${this.#count++}`;
    this.tensors.push(int64Tensor(name, values));
    return name;
  }

  /** A float32 number. */
  scalar(value: number): string {
    return this.tensor([], Float32Array.of(value), DataType.FLOAT);
  }

  /** A value in another type. */
  cast(value: string, to: number): string {
    return this.node("Cast", [value], { to: BigInt(to) });
  }

  /** Random numbers in the type of weights. */
  matrix(...shape: readonly number[]): string {
    const size = shape.reduce((a, b) => a * b);
    return this.tensor(shape, Float32Array.from({ length: size }, () => this.#random() - 0.5), this.type);
  }

  /** Part of a value along an axis. */
  slice(
    value: string,
    axis: number,
    { start = 0, end = Number.MAX_SAFE_INTEGER, step = 1 }: {
      readonly start?: number;
      readonly end?: number;
      readonly step?: number;
    },
  ): string {
    return this.node("Slice", [value, ...[start, end, axis, step].map((number) => this.integers(number))]);
  }

  /** Numbers as an initializer. */
  tensor(shape: readonly number[], values: Float32Array, type: number): string {
    const name = `c${this.#count++}`;
    this.tensors.push(floatTensor(name, shape, values, type));
    return name;
  }
}
