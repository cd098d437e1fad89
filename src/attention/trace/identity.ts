/**
 * Which elements of values are equal whatever a model is fed, as far as the graph shows: those of a table that is joined with
 * itself, those of two computations that are the same, in one layer and in the next.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, type NodeProto } from "../../onnx/node.ts";
import { DataType, sizeOf } from "../../onnx/tensor.ts";
import type { CoefficientSource } from "./coefficient_sources.ts";
import { knownConstant } from "./constants.ts";
import { movementOf } from "./movement.ts";
import { agreedNumbers, isSteered } from "./steering.ts";
import type { Tracer } from "./tracer.ts";
import { axisOf, broadcastIndex, stridedIndex, stridesOf } from "./value.ts";

/** Operators that compute the same from the same elements. */
const POINTWISE = new Set([
  ...["Cos", "Sin", "Neg", "Sqrt", "Exp", "Reciprocal"],
  ...["Add", "Sub", "Mul", "Div", "Pow"],
]);

/** Types that a Cast may round to without making another number of it. */
const FLOATS = new Set<number>([DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16, DataType.DOUBLE]);

/** Largest value whose elements are told apart. */
const LARGEST = 1 << 20;

/** Numbers for elements and values of one model: equal numbers stand for equal contents. */
export class Identities {
  readonly #tracer: Tracer;
  readonly #numbers = new Map<string, number>();
  readonly #constants = new Map<number, number>();
  readonly #graphs = new Map<Graph, { readonly index: number; readonly values: Map<string, number> }>();
  #elements = new Map<Graph, Map<string, Int32Array | undefined>>();
  readonly #coefficients = new WeakMap<CoefficientSource, Int32Array | undefined>();
  /** Lines of constants, such as the tables that all layers share. */
  readonly #lineNumbers = new Map<string, number[]>();
  #next = 0;

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** For every element of a value its number; undefined where the shape isn't known, or is large. */
  elements(graph: Graph, name: string): Int32Array | undefined {
    const scope = graph.scopeOf(name) ?? graph;
    let known = this.#elements.get(scope);
    if (known === undefined) this.#elements.set(scope, known = new Map());
    if (!known.has(name)) known.set(name, this.#elementsOf(scope, name));
    return known.get(name);
  }

  /** The same for what keys are multiplied by. */
  coefficients(source: CoefficientSource): Int32Array | undefined {
    if (!this.#coefficients.has(source)) this.#coefficients.set(source, this.#coefficientsOf(source));
    return this.#coefficients.get(source);
  }

  #coefficientsOf({ graph, name, rows, shape }: CoefficientSource): Int32Array | undefined {
    if (rows === undefined) return this.elements(graph, name);
    const lines = this.#lines(graph, name, 0);
    const positions = this.elements(graph, rows.positions);
    if (lines === undefined || positions === undefined) return undefined;
    const picked = !rows.counted
      ? positions
      : Int32Array.from({ length: shape[0]! }, (_, t) => this.#number(`${positions[0]} + ${t}`));
    return this.#picked({ lines, picked, inner: shape.at(-1)!, size: sizeOf(shape) });
  }

  /** The number of a graph among those of the model. */
  graph(graph: Graph): number {
    return this.#graph(graph).index;
  }

  /** Gives back the memory of elements. What is asked for again has the numbers that it had. */
  forgetElements(): void {
    this.#elements = new Map();
  }

  #elementsOf(graph: Graph, name: string): Int32Array | undefined {
    const { shape, constant } = this.#tracer.value(graph, name);
    if (shape === undefined || sizeOf(shape) > LARGEST) return undefined;
    if (constant) {
      const data = knownConstant(graph, name, this.#tracer.folder)?.data;
      if (data !== undefined) return Int32Array.from({ length: data.length }, (_, i) => this.#constant(data[i]!));
    }
    const node = graph.producer(name);
    const made = node && (this.#moved(graph, node, name) ?? this.#along(graph, node, shape) ??
      this.#pointwise(graph, node, shape));
    if (made !== undefined) return made;
    const value = this.value(graph, name);
    return Int32Array.from({ length: sizeOf(shape) }, (_, i) => this.#number(`${value}[${i}]`));
  }

  #moved(graph: Graph, node: NodeProto, name: string): Int32Array | undefined {
    if (truncates(node) || isSteered(this.#tracer.runs, graph, node)) return undefined;
    const values = node.input.map((input) => input === "" ? undefined : this.#tracer.value(graph, input));
    const movement = movementOf(node, values);
    if (movement === undefined) return undefined;
    const parts = movement.dataInputs.map((i) => this.elements(graph, node.input[i]!));
    if (!parts.every((part) => part !== undefined)) return undefined;
    const joined = parts.length === 1 ? parts[0]! : Int32Array.from(parts.flatMap((part) => Array.from(part)));
    const { index } = movement.outputs[node.output.indexOf(name)]!;
    return index === undefined ? joined : index().map((from) => joined[from]!);
  }

  /**
   * Rows picked along one axis, nobody knows which: elements are equal where they are picked by the same index from lines along
   * that axis that are equal throughout.
   */
  #along(graph: Graph, node: NodeProto, shape: readonly number[]): Int32Array | undefined {
    const [data, indices] = node.input as [string, string | undefined];
    const from = this.#tracer.value(graph, data).shape;
    if (from === undefined) return undefined;
    const axes = node.opType === "Gather"
      ? [intAttribute(node, "axis", 0)]
      : node.opType === "Slice"
      ? agreedNumbers(this.#tracer.runs, graph, node.input[3])
      : undefined;
    if (axes?.length !== 1) return undefined;
    const axis = axisOf(axes[0]!, from.length);
    const lines = this.#lines(graph, data, axis);
    if (lines === undefined) return undefined;
    const picked = node.opType === "Gather"
      ? this.elements(graph, indices!)
      : Int32Array.from({ length: shape[axis]! }, (_, k) => this.#number(`${this.#structure(graph, node)}.${k}`));
    return picked && this.#picked({ lines, picked, inner: sizeOf(from.slice(axis + 1)), size: sizeOf(shape) });
  }

  /** For every line of a value along an axis its number, in the order of the other axes. */
  #lines(graph: Graph, name: string, axis: number): number[] | undefined {
    const { shape, constant } = this.#tracer.value(graph, name);
    if (shape === undefined) return undefined;
    const count = sizeOf(shape.with(axis, 1));
    if (count > LARGEST) return undefined;
    if (sizeOf(shape) > LARGEST) {
      const value = this.value(graph, name);
      return Array.from({ length: count }, (_, line) => this.#number(`line ${line} of ${value}`));
    }
    const key = `${this.graph(graph.scopeOf(name) ?? graph)} ${axis} ${name}`;
    const remembered = this.#lineNumbers.get(key);
    if (remembered !== undefined) return remembered;
    const known = constant ? knownConstant(graph, name, this.#tracer.folder)?.data : undefined;
    const elements = known === undefined ? this.elements(graph, name) : Float64Array.from(known);
    if (elements === undefined) return undefined;
    const strides = stridesOf(shape);
    const lines = Array.from(stridedIndex(shape.with(axis, 1), strides), (start) => {
      const line = new Float64Array(shape[axis]!);
      for (let k = 0; k < line.length; k++) line[k] = elements[start + k * strides[axis]!]!;
      return this.#number(`line of ${known === undefined ? "numbers" : "constants"} ${digest(line)}`);
    });
    if (known !== undefined) this.#lineNumbers.set(key, lines);
    return lines;
  }

  /** Elements of lines, at places that nobody knows along an axis before which and behind which (`inner`) others may stand. */
  #picked(
    { lines, picked, inner, size }: {
      readonly lines: readonly number[];
      readonly picked: Int32Array;
      readonly inner: number;
      readonly size: number;
    },
  ): Int32Array {
    return Int32Array.from({ length: size }, (_, at) => {
      const place = Math.floor(at / inner);
      const line = Math.floor(place / picked.length) * inner + at % inner;
      return this.#number(`${lines[line]}@${picked[place % picked.length]}`);
    });
  }

  #pointwise(graph: Graph, node: NodeProto, shape: readonly number[]): Int32Array | undefined {
    if (!POINTWISE.has(node.opType) || node.domain !== "" && node.domain !== "ai.onnx") return undefined;
    const operands = node.input.map((input) => {
      const elements = this.elements(graph, input);
      const from = this.#tracer.value(graph, input).shape;
      return elements && from && broadcastIndex(from, shape).map((i) => elements[i]!);
    });
    if (!operands.every((operand) => operand !== undefined)) return undefined;
    return Int32Array.from(
      { length: sizeOf(shape) },
      (_, i) => this.#number(`${node.opType} ${operands.map((operand) => operand[i])}`),
    );
  }

  /** The number of a whole value: by what it is computed from. */
  value(graph: Graph, name: string): number {
    const scope = graph.scopeOf(name) ?? graph;
    const { index, values } = this.#graph(scope);
    let value = values.get(name);
    if (value !== undefined) return value;
    const node = scope.producer(name);
    const own = `value ${index} ${name}`;
    if (this.#tracer.value(scope, name).constant) {
      value = this.#number(this.#content(scope, name) ?? own);
    } else if (node === undefined || node.opType.startsWith("Random") || node.attribute.some(isNested)) {
      value = this.#number(own);
    } else {
      value = this.#number(`${this.#structure(scope, node)} > ${node.output.indexOf(name)}`);
    }
    values.set(name, value);
    return value;
  }

  /** What a node computes, from what. */
  #structure(graph: Graph, node: NodeProto): number {
    const inputs = node.input.map((input) => input === "" ? "" : this.value(graph, input));
    const attributes = node.attribute.map(({ name, i, f, s, ints, floats, strings }) =>
      [name, i, f, s, ints, floats, strings].map(String).join(",")
    );
    return this.#number(`${node.domain}.${node.opType}(${inputs}){${attributes.sort().join(";")}}`);
  }

  #content(graph: Graph, name: string): string | undefined {
    const { shape } = this.#tracer.value(graph, name);
    if (shape === undefined || sizeOf(shape) > LARGEST) return undefined;
    const known = knownConstant(graph, name, this.#tracer.folder);
    return known && `constant ${shape} ${digest(Float64Array.from(known.data))}`;
  }

  #graph(graph: Graph): { readonly index: number; readonly values: Map<string, number> } {
    let known = this.#graphs.get(graph);
    if (known === undefined) this.#graphs.set(graph, known = { index: this.#graphs.size, values: new Map() });
    return known;
  }

  #constant(value: number): number {
    let number = this.#constants.get(value);
    if (number === undefined) this.#constants.set(value, number = this.#next++);
    return number;
  }

  #number(key: string): number {
    let number = this.#numbers.get(key);
    if (number === undefined) this.#numbers.set(key, number = this.#next++);
    return number;
  }
}

/** Whether a node makes integers (or booleans) of numbers. */
function truncates(node: NodeProto): boolean {
  return node.opType === "Cast" && !FLOATS.has(intAttribute(node, "to", DataType.FLOAT)) || node.opType === "CastLike";
}

function isNested(attribute: NodeProto["attribute"][number]): boolean {
  return attribute.t !== undefined || attribute.g !== undefined || attribute.graphs.length > 0;
}

function digest(numbers: Float64Array): string {
  return createHash("sha256").update(new Uint8Array(numbers.buffer)).digest("base64");
}
