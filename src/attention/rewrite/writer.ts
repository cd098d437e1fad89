/**
 * Collects the edits of a rewrite: new nodes under fresh names, constants stored once, nodes that new ones replace.
 *
 * @module
 */
import { applyEdits, type GraphEdit, NameSource } from "../../onnx/edit.ts";
import { withFields } from "../../onnx/codec.ts";
import type { Graph } from "../../onnx/graph.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import {
  type AttributeValue,
  type GraphProto,
  makeGraph,
  makeNode,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "../../onnx/node.ts";
import { DataType, floatTensor, int64Tensor, laterTensor } from "../../onnx/tensor.ts";
import { typeInfo } from "../../onnx/value_info.ts";
import { type LoweredGraph, placedLowerings } from "../lower/restore.ts";

/** Numbers, or what makes them when the model is written: in an array of the writer's own. */
export type Numbers = Float32Array | (() => Promise<Float32Array>);

/** Numbers of a factor. */
export interface FactorNumbers {
  readonly shape: readonly number[];
  readonly data: Numbers;
}

/** A graph edit under construction. */
interface OpenEdit extends GraphEdit {
  readonly removed: Set<NodeProto>;
  readonly added: NodeProto[];
  readonly initializers: TensorProto[];
  readonly inputs: ValueInfoProto[];
  readonly retyped: Map<string, ValueInfoProto>;
}

/** Writes the new parts of a model. Tensors and inputs go to the main graph, where subgraphs see them. */
export class ModelWriter {
  readonly #source: Pick<LoweredGraph, "graph"> & Partial<LoweredGraph>;
  readonly #names: NameSource;
  readonly #edits = new Map<Graph, OpenEdit>();
  readonly #constants = new Map<string, string>();
  readonly #shared = new Map<Graph, Map<string, string>>();
  readonly #later = new Map<string, () => Promise<Float32Array>>();
  /** Nodes of the branch that is being written. */
  #branch: NodeProto[] | undefined;

  /** A writer for a graph; lowered operators of it that no edit touches become those of the file again. */
  constructor(source: Pick<LoweredGraph, "graph"> & Partial<LoweredGraph>) {
    this.#source = source;
    this.#names = new NameSource(source.graph);
  }

  /** A name that no value and no node of the model has. */
  fresh(wanted: string): string {
    return this.#names.fresh(wanted);
  }

  /** Adds a node to a graph; the name of its only output is `output`, or a fresh one made from `label`. */
  node(
    graph: Graph,
    opType: string,
    spec: {
      readonly inputs: readonly string[];
      readonly label: string;
      readonly output?: string | undefined;
      readonly attributes?: Readonly<Record<string, AttributeValue>>;
    },
  ): string {
    const name = this.fresh(spec.label);
    const output = spec.output ?? name;
    if (spec.output !== undefined) this.#replace(graph, spec.output);
    const node = makeNode(opType, spec.inputs, [output], {
      name,
      ...(spec.attributes === undefined ? {} : { attributes: spec.attributes }),
    });
    (this.#branch ?? this.#edit(graph).added).push(node);
    return output;
  }

  /**
   * A graph for a branch of If: the nodes that `write` adds, which see all values around them, and the values it returns as its
   * outputs.
   */
  branch(label: string, dataType: number, write: () => readonly string[]): GraphProto {
    if (this.#branch !== undefined) throw new TypeError("branches are written one after the other");
    const node: NodeProto[] = this.#branch = [];
    try {
      const output = write().map((value) => typeInfo(value, dataType));
      return makeGraph(this.fresh(label), node, output);
    } finally {
      this.#branch = undefined;
    }
  }

  /**
   * A value that several blocks of a graph read, made when the first of them asks with that key. In a branch nothing is made for
   * others.
   */
  shared(graph: Graph, key: string, make: () => string): string {
    let values = this.#shared.get(graph);
    if (values === undefined) this.#shared.set(graph, values = new Map());
    let value = values.get(key);
    if (value !== undefined) return value;
    if (this.#branch !== undefined) throw new TypeError(`${key} is to be shared, but made in a branch`);
    values.set(key, value = make());
    return value;
  }

  /** Adds a node made elsewhere, in place of the present producers of its outputs. */
  put(graph: Graph, node: NodeProto): void {
    for (const output of node.output) this.#replace(graph, output);
    this.#edit(graph).added.push(node);
  }

  /** Name of an int64 list, stored once for all who ask for the same one. */
  integers(values: readonly number[]): string {
    return this.#constant(
      `integers ${values}`,
      () => int64Tensor(this.fresh(`tuckerd.shape.${values.join("_")}`), values),
    );
  }

  /** Name of an int64 scalar, stored once for all who ask for the same one. */
  integer(value: number): string {
    return this.#constant(`integer ${value}`, () => int64Tensor(this.fresh(`tuckerd.integer.${value}`), [value], []));
  }

  /** Name of a scalar of a floating type, stored once for all who ask for the same one. */
  scalar(value: number, dataType: number = DataType.FLOAT): string {
    return this.#constant(
      `scalar ${dataType} ${value}`,
      () => floatTensor(this.fresh(`tuckerd.scalar.${value}`), [], Float32Array.of(value), dataType),
    );
  }

  /** Adds an initializer to the main graph. */
  initializer(tensor: TensorProto): void {
    this.#edit(this.#source.graph).initializers.push(tensor);
  }

  /** Adds an initializer of a floating type, whose numbers may be made when the model is written. */
  floats(to: { readonly name: string; readonly type: number }, { shape, data }: FactorNumbers): void {
    const { name, type } = to;
    if (data instanceof Float32Array) return this.initializer(floatTensor(name, shape, data, type));
    this.#later.set(name, data);
    this.initializer(laterTensor(name, shape, type));
  }

  /** Adds a model input. */
  input(info: ValueInfoProto): void {
    this.#edit(this.#source.graph).inputs.push(info);
  }

  /** Gives a graph's input or output another type. */
  retype(graph: Graph, info: ValueInfoProto): void {
    this.#edit(graph).retyped.set(info.name, info);
  }

  /** The model with every edit applied and dead nodes dropped; the original is untouched. */
  finish(model: OnnxModel): OnnxModel {
    const { graph, lowerings = [] } = this.#source;
    for (const { scope, original, nodes } of placedLowerings({ graph, lowerings })) {
      const removed = this.#edits.get(scope)?.removed;
      if (!nodes.some((node) => removed?.has(node))) this.put(scope, original);
    }
    const written = { ...model, proto: withFields(model.proto, { graph: this.graph() }) };
    return this.#later.size === 0 ? written : { ...written, later: new Map([...model.later ?? [], ...this.#later]) };
  }

  /** The graph with every edit applied so far, without dead nodes unless they are asked for. */
  graph(dead?: "kept"): GraphProto {
    return applyEdits(this.#source.graph, this.#edits, dead);
  }

  #edit(graph: Graph): OpenEdit {
    let edit = this.#edits.get(graph);
    if (edit === undefined) {
      edit = { removed: new Set(), added: [], initializers: [], inputs: [], retyped: new Map() };
      this.#edits.set(graph, edit);
    }
    return edit;
  }

  /** The value will be made by a new node: the node that makes it now goes. */
  #replace(graph: Graph, name: string): void {
    const node = graph.producer(name);
    if (node !== undefined) this.#edit(graph).removed.add(node);
  }

  #constant(key: string, make: () => TensorProto): string {
    let name = this.#constants.get(key);
    if (name === undefined) {
      const tensor = make();
      this.initializer(tensor);
      this.#constants.set(key, name = tensor.name);
    }
    return name;
  }
}
