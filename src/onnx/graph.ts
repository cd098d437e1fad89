/**
 * An index over a graph and its subgraphs: who makes a value, who reads it, which values are constants.
 *
 * @module
 */
import { type GraphProto, type NodeProto, subgraphsOf, type TensorProto, type ValueInfoProto } from "./node.ts";

/** One reading of a value: input `index` of `node`, a node of `graph`. */
export interface Use {
  readonly graph: Graph;
  readonly node: NodeProto;
  readonly index: number;
}

/** A graph with lookups by value name. Subgraphs (branches, loop bodies) are indexed with it and see its values. */
export class Graph {
  readonly proto: GraphProto;
  /** The graph around this one; undefined for the main graph. */
  readonly parent: Graph | undefined;
  /** The node whose attribute this graph is; undefined for the main graph. */
  readonly owner: NodeProto | undefined;
  readonly subgraphs: readonly Graph[];
  readonly #producers = new Map<string, NodeProto>();
  readonly #initializers = new Map<string, TensorProto>();
  readonly #inputs = new Map<string, ValueInfoProto>();
  readonly #outputs = new Set<string>();
  readonly #uses = new Map<string, Use[]>();

  constructor(proto: GraphProto, around?: { readonly parent: Graph; readonly owner: NodeProto }) {
    this.proto = proto;
    this.parent = around?.parent;
    this.owner = around?.owner;
    for (const tensor of proto.initializer) this.#initializers.set(tensor.name, tensor);
    for (const input of proto.input) {
      // Before IR version 4 initializers were listed as inputs too: those are constants, not inputs.
      if (!this.#initializers.has(input.name)) this.#inputs.set(input.name, input);
    }
    for (const output of proto.output) this.#outputs.add(output.name);
    for (const node of proto.node) {
      for (const output of node.output) if (output !== "") this.#producers.set(output, node);
    }
    const subgraphs: Graph[] = [];
    for (const node of proto.node) {
      node.input.forEach((name, index) => this.#use(name, { graph: this, node, index }));
      for (const { graph } of subgraphsOf(node)) subgraphs.push(new Graph(graph, { parent: this, owner: node }));
    }
    this.subgraphs = subgraphs;
  }

  /** The graph in which a value visible from here is made: this one or one around it. */
  scopeOf(name: string): Graph | undefined {
    if (this.#producers.has(name) || this.#initializers.has(name) || this.#inputs.has(name)) return this;
    return this.parent?.scopeOf(name);
  }

  /** The node that makes a value visible from here; undefined for inputs and initializers. */
  producer(name: string): NodeProto | undefined {
    return this.#producers.get(name) ?? (this.#isOwn(name) ? undefined : this.parent?.producer(name));
  }

  /** The initializer of that name visible from here. */
  initializer(name: string): TensorProto | undefined {
    return this.#initializers.get(name) ?? (this.#isOwn(name) ? undefined : this.parent?.initializer(name));
  }

  /** The graph input of that name visible from here; initializers are not inputs. */
  input(name: string): ValueInfoProto | undefined {
    return this.#inputs.get(name) ?? (this.#isOwn(name) ? undefined : this.parent?.input(name));
  }

  /** Whether a value made here is an output of this graph. */
  isOutput(name: string): boolean {
    return this.#outputs.has(name);
  }

  /** Every reading of a value, in subgraphs too. */
  uses(name: string): readonly Use[] {
    const scope = this.scopeOf(name);
    return scope === undefined ? [] : scope.#uses.get(name) ?? [];
  }

  /** This graph and all graphs inside it. */
  *all(): Generator<Graph> {
    yield this;
    for (const subgraph of this.subgraphs) yield* subgraph.all();
  }

  #isOwn(name: string): boolean {
    return this.#inputs.has(name) || this.#initializers.has(name);
  }

  #use(name: string, use: Use): void {
    if (name === "") return;
    // A value from outside is registered where it is made, so that its uses are found there.
    const scope = this.scopeOf(name) ?? this;
    const uses = scope.#uses.get(name);
    if (uses === undefined) scope.#uses.set(name, [use]);
    else uses.push(use);
  }
}

/** Values that a graph takes from the graphs around it. */
export function freeNames(graph: GraphProto): Set<string> {
  const made = new Set<string>([...graph.input, ...graph.initializer].map((value) => value.name));
  for (const node of graph.node) for (const output of node.output) made.add(output);
  const free = new Set<string>();
  for (const node of graph.node) for (const name of readNames(node)) if (!made.has(name)) free.add(name);
  for (const output of graph.output) if (!made.has(output.name)) free.add(output.name);
  return free;
}

/** Values that a node reads, also those that only its subgraphs read. */
export function readNames(node: NodeProto): string[] {
  const names = node.input.filter((name) => name !== "");
  for (const { graph } of subgraphsOf(node)) names.push(...freeNames(graph));
  return names;
}
