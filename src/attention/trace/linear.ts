/**
 * Values that are linear in a projection's elements, with coefficients that the graph computes from something else: what a
 * rotary embedding makes of keys, cos ⊙ k + sin ⊙ rotate(k).
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { nodeName, type NodeProto, operatorOf } from "../../onnx/node.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { agreedData } from "./evaluate.ts";
import { movementOf } from "./movement.ts";
import type { Trace } from "./trace.ts";
import type { Tracer } from "./tracer.ts";
import { broadcastIndex } from "./value.ts";

/** A value whose elements are coefficients. */
export interface CoefficientSource {
  readonly graph: Graph;
  readonly name: string;
  readonly shape: readonly number[];
  /** First of its elements in the numbering of coefficients. */
  readonly base: number;
}

/** One summand of an element: coefficient · (scale · origin + offset). */
export interface LinearTerm {
  /** As in `Trace`. */
  readonly origin: number;
  /** Number of a coefficient's element; −1 for 1. */
  readonly coefficient: number;
  readonly scale: number;
  readonly offset: number;
}

/** The summands of every element of a value: none, one or two. */
export interface LinearTrace {
  readonly shape: readonly number[];
  readonly elements: readonly (readonly LinearTerm[])[];
}

/** The same, worked out for one element when it is asked for: undefined where it isn't linear. Values on the way take no memory. */
interface LazyTrace {
  readonly shape: readonly number[];
  readonly at: (element: number) => readonly LinearTerm[] | undefined;
}

/** Most summands that an element may have: a rotation mixes pairs. */
const MOST = 2;

/** Follows values that depend on what one node, a projection, makes. */
export class LinearTracer {
  readonly #tracer: Tracer;
  readonly #node: NodeProto;
  readonly #known = new Map<Graph, Map<string, LazyTrace | undefined>>();
  readonly #sources: CoefficientSource[] = [];
  #problem: string | undefined;

  constructor(tracer: Tracer, node: NodeProto) {
    this.#tracer = tracer;
    this.#node = node;
  }

  /** The first operator that isn't linear or isn't understood, once a trace came out undefined. */
  get problem(): string {
    return this.#problem ?? "what it is made from can't be followed";
  }

  /** The summands of a value's elements, or undefined where something on the way isn't linear, or isn't understood. */
  trace(graph: Graph, name: string): LinearTrace | undefined {
    const lazy = this.#lazy(graph, name);
    if (lazy === undefined) return undefined;
    const elements: (readonly LinearTerm[])[] = [];
    for (let i = 0; i < sizeOf(lazy.shape); i++) {
      const terms = lazy.at(i);
      if (terms === undefined) return undefined;
      elements.push(terms);
    }
    return { shape: lazy.shape, elements };
  }

  /** The value that a coefficient is an element of, and the element's flat index there. */
  coefficient(number: number): { readonly source: CoefficientSource; readonly index: number } {
    const source = this.#sources.findLast(({ base }) => base <= number)!;
    return { source, index: number - source.base };
  }

  #lazy(graph: Graph, name: string): LazyTrace | undefined {
    const scope = graph.scopeOf(name) ?? graph;
    let known = this.#known.get(scope);
    if (known === undefined) this.#known.set(scope, known = new Map());
    if (!known.has(name)) known.set(name, this.#follow(scope, name));
    return known.get(name);
  }

  #follow(graph: Graph, name: string): LazyTrace | undefined {
    const trace = this.#tracer.trace(graph, name);
    if (trace === undefined) return undefined;
    if (trace.inexact === undefined) return exact(trace);
    const node = graph.producer(name);
    if (node === undefined) return undefined;
    const followed = this.#moved(graph, node, name) ?? this.#combined(graph, node, trace.shape);
    if (followed === undefined) this.#refuse(node);
    return followed;
  }

  /** Remembers the first operator that isn't linear. */
  #refuse(node: NodeProto): undefined {
    this.#problem ??= `${operatorOf(node)} (${nodeName(node)}) is no part of a rotation`;
  }

  #moved(graph: Graph, node: NodeProto, name: string): LazyTrace | undefined {
    const values = node.input.map((input) => input === "" ? undefined : this.#tracer.value(graph, input));
    const movement = movementOf(node, values);
    if (movement === undefined) return undefined;
    const parts = movement.dataInputs.map((i) => this.#lazy(graph, node.input[i]!));
    if (!parts.every((part) => part !== undefined)) return undefined;
    const joined = join(parts);
    const { shape, index } = movement.outputs[node.output.indexOf(name)]!;
    if (index === undefined) return { shape, at: joined };
    const from = index();
    return { shape, at: (i) => joined(from[i]!) };
  }

  #combined(graph: Graph, node: NodeProto, shape: readonly number[]): LazyTrace | undefined {
    const [a, b] = node.input as [string, string | undefined];
    if (node.opType === "Neg") return this.#mapped(graph, a, { shape, by: (term) => scaled(term, -1) });
    if (b === undefined) return undefined;
    const [first, second] = [a, b].map((input) => this.#tracer.reaches(graph, input, this.#node));
    switch (node.opType) {
      case "Add":
      case "Sub":
        return first && second ? this.#sum(graph, node, shape) : undefined;
      case "Mul":
        if (first && second) return undefined;
        return first
          ? this.#product(graph, node, { linear: a, factor: b, shape })
          : this.#product(graph, node, { linear: b, factor: a, shape });
      case "Div": {
        const known = first && !second ? this.#numbers(graph, b) : undefined;
        return known && this.#timesNumbers(graph, a, { shape, known, of: (number) => 1 / number });
      }
      default:
        return undefined;
    }
  }

  #sum(graph: Graph, node: NodeProto, shape: readonly number[]): LazyTrace | undefined {
    const [left, right] = node.input.map((input) => this.#lazy(graph, input));
    if (left === undefined || right === undefined) return undefined;
    const [i, j] = [broadcastIndex(left.shape, shape), broadcastIndex(right.shape, shape)];
    const sign = node.opType === "Add" ? 1 : -1;
    const at = (element: number): readonly LinearTerm[] | undefined => {
      const [terms, others] = [left.at(i[element]!), right.at(j[element]!)];
      if (terms === undefined || others === undefined) return undefined;
      if (terms.length + others.length > MOST) return this.#refuse(node);
      return [...terms, ...others.map((term) => scaled(term, sign))];
    };
    return { shape, at };
  }

  #product(
    graph: Graph,
    node: NodeProto,
    { linear, factor, shape }: {
      readonly linear: string;
      readonly factor: string;
      readonly shape: readonly number[];
    },
  ): LazyTrace | undefined {
    const known = this.#numbers(graph, factor);
    if (known !== undefined) return this.#timesNumbers(graph, linear, { shape, known, of: (number) => number });
    const source = this.#source(graph, factor);
    if (source === undefined) return undefined;
    const places = broadcastIndex(source.shape, shape);
    const by = (term: LinearTerm, at: number): LinearTerm | undefined =>
      // A product of coefficients is no element of any value.
      term.coefficient === -1 ? { ...term, coefficient: source.base + places[at]! } : this.#refuse(node);
    return this.#mapped(graph, linear, { shape, by });
  }

  #timesNumbers(
    graph: Graph,
    linear: string,
    { shape, known, of }: {
      readonly shape: readonly number[];
      readonly known: { readonly shape: readonly number[]; readonly data: ArrayLike<number> };
      readonly of: (number: number) => number;
    },
  ): LazyTrace | undefined {
    const places = broadcastIndex(known.shape, shape);
    return this.#mapped(graph, linear, { shape, by: (term, at) => scaled(term, of(known.data[places[at]!]!)) });
  }

  #mapped(
    graph: Graph,
    name: string,
    { shape, by }: {
      readonly shape: readonly number[];
      readonly by: (term: LinearTerm, at: number) => LinearTerm | undefined;
    },
  ): LazyTrace | undefined {
    const trace = this.#lazy(graph, name);
    if (trace === undefined) return undefined;
    const index = broadcastIndex(trace.shape, shape);
    const at = (element: number): readonly LinearTerm[] | undefined => {
      const terms = trace.at(index[element]!)?.map((term) => by(term, element));
      return terms?.every((term) => term !== undefined) ? terms : undefined;
    };
    return { shape, at };
  }

  /** Numbers that don't depend on the input's sizes. */
  #numbers(
    graph: Graph,
    name: string,
  ): { readonly shape: readonly number[]; readonly data: ArrayLike<number> } | undefined {
    const agreed = agreedData(this.#tracer.runs, graph, name);
    if (agreed !== undefined || !this.#tracer.value(graph, name).constant) return agreed;
    const trace = this.#tracer.trace(graph, name);
    return trace && { shape: trace.shape, data: trace.offset };
  }

  #source(graph: Graph, name: string): CoefficientSource | undefined {
    const { shape, constant } = this.#tracer.value(graph, name);
    if (shape === undefined) this.#problem ??= `the shape of what its keys are multiplied by, ${name}, isn't known`;
    if (shape === undefined || constant) return undefined;
    const scope = graph.scopeOf(name) ?? graph;
    const known = this.#sources.find((source) => source.graph === scope && source.name === name);
    if (known !== undefined) return known;
    const last = this.#sources.at(-1);
    const base = last === undefined ? 0 : last.base + sizeOf(last.shape);
    const source = { graph: scope, name, shape, base };
    this.#sources.push(source);
    return source;
  }
}

/** An exact view: one summand for each element, and none for a zero. */
function exact({ shape, origin, scale, offset }: Trace): LazyTrace {
  const at = (i: number): LinearTerm[] =>
    origin[i] === -1 && offset[i] === 0
      ? []
      : [{ origin: origin[i]!, coefficient: -1, scale: scale[i]!, offset: offset[i]! }];
  return { shape, at };
}

/** Elements of several values in one numbering, one value after the other. */
function join([first, ...others]: readonly LazyTrace[]): LazyTrace["at"] {
  if (others.length === 0) return first!.at;
  const rest = join(others);
  const size = sizeOf(first!.shape);
  return (i) => i < size ? first!.at(i) : rest(i - size);
}

function scaled(term: LinearTerm, by: number): LinearTerm {
  return { ...term, scale: term.scale * by, offset: term.offset * by };
}
