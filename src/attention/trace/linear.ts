/**
 * Values that are linear in a projection's elements, with coefficients that the graph computes from something else: what a
 * rotary embedding makes of keys, cos ⊙ k + sin ⊙ rotate(k).
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { nodeName, type NodeProto, operatorOf } from "../../onnx/node.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { type CoefficientSource, CoefficientSources } from "./coefficient_sources.ts";
import { agreedData } from "./evaluate.ts";
import { exact, join, type LazyTrace, type LinearStart, started } from "./lazy_trace.ts";
import { LinearTerms, type LinearTrace, MOST_TERMS } from "./linear_terms.ts";
import { movementOf } from "./movement.ts";
import { isRotaryEmbedding, readRotaryEmbedding, turnedTrace } from "./rotary.ts";
import type { Tracer } from "./tracer.ts";
import { broadcastIndex } from "./value.ts";

/** Follows values that depend on what one node, a projection, makes. */
export class LinearTracer {
  readonly #tracer: Tracer;
  readonly #node: NodeProto;
  readonly #starts: ReadonlyMap<string, LinearStart>;
  readonly #known = new Map<Graph, Map<string, LazyTrace | undefined>>();
  readonly #sources: CoefficientSources;
  #problem: string | undefined;

  /** @param starts what stands for the projection, where something does: nothing else may carry its elements then */
  constructor(tracer: Tracer, node: NodeProto, starts: readonly LinearStart[] = []) {
    this.#tracer = tracer;
    this.#node = node;
    this.#starts = new Map(starts.map((start) => [start.name, start]));
    this.#sources = new CoefficientSources(tracer);
  }

  /** The first operator that isn't linear or isn't understood, once a trace came out undefined. */
  get problem(): string {
    return this.#problem ?? "what it is made from can't be followed";
  }

  /** The terms of a value's elements, or undefined where something on the way isn't linear, or isn't understood. */
  trace(graph: Graph, name: string): LinearTrace | undefined {
    const lazy = this.#lazy(graph, name);
    if (lazy === undefined) return undefined;
    const size = sizeOf(lazy.shape);
    // An element with more terms is refused: those that don't fit are never read.
    const terms = new LinearTerms(size * MOST_TERMS);
    const starts = new Int32Array(size + 1);
    for (let i = 0; i < size; i++) {
      if (!lazy.add(i, terms)) return undefined;
      starts[i + 1] = terms.length;
    }
    return { shape: lazy.shape, terms, starts };
  }

  /** The value that a coefficient is an element of, and the element's flat index there. */
  coefficient(number: number): { readonly source: CoefficientSource; readonly index: number } {
    return this.#sources.at(number);
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
    const start = this.#starts.get(name);
    if (start !== undefined) return started(start);
    const unstarted = this.#starts.size > 0 && this.#tracer.reaches(graph, name, this.#node);
    if (trace.inexact === undefined && !unstarted) return exact(trace);
    const node = graph.producer(name);
    if (node === undefined) return undefined;
    const followed = this.#moved(graph, node, name) ??
      (isRotaryEmbedding(node) ? this.#rotated(graph, node) : this.#combined(graph, node, trace.shape));
    if (followed === undefined) this.#refuse(node);
    return followed;
  }

  /** Remembers the first operator that isn't linear. */
  #refuse(node: NodeProto): void {
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
    if (index === undefined) return { shape, add: joined };
    const from = index();
    return { shape, add: (element, to) => joined(from[element]!, to) };
  }

  #combined(graph: Graph, node: NodeProto, shape: readonly number[]): LazyTrace | undefined {
    const [a, b] = node.input as [string, string | undefined];
    if (node.opType === "Neg") return this.#mapped(graph, a, { shape, by: negate });
    if (b === undefined) return undefined;
    const [first, second] = [a, b].map((input) => this.#tracer.reaches(graph, input, this.#node));
    switch (node.opType) {
      case "Add":
      case "Sub":
        if (first && second) return this.#sum(graph, node, shape);
        return first
          ? this.#shifted(graph, node, { linear: a, by: b, shape })
          : second && node.opType === "Add"
          ? this.#shifted(graph, node, { linear: b, by: a, shape })
          : undefined;
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
    const add = (element: number, to: LinearTerms): boolean => {
      const start = to.length;
      if (!left.add(i[element]!, to)) return false;
      const middle = to.length;
      if (!right.add(j[element]!, to)) return false;
      if (node.opType === "Sub") to.scaleFrom(middle, -1);
      const fits = to.length - start <= MOST_TERMS;
      if (!fits) this.#refuse(node);
      return fits;
    };
    return { shape, add };
  }

  /** Plus or minus numbers that are known. */
  #shifted(
    graph: Graph,
    node: NodeProto,
    { linear, by, shape }: { readonly linear: string; readonly by: string; readonly shape: readonly number[] },
  ): LazyTrace | undefined {
    const known = this.#numbers(graph, by);
    if (known === undefined) return undefined;
    const places = broadcastIndex(known.shape, shape);
    const sign = node.opType === "Sub" ? -1 : 1;
    const shift = (element: number, to: LinearTerms, start: number): boolean => {
      const single = to.shiftFrom(start, sign * known.data[places[element]!]!);
      if (!single) this.#refuse(node);
      return single;
    };
    return this.#mapped(graph, linear, { shape, by: shift });
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
    const by = (element: number, to: LinearTerms, start: number): boolean => {
      const single = to.turnFrom(start, source.base + places[element]!);
      if (!single) this.#refuse(node);
      return single;
    };
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
    const by = (element: number, to: LinearTerms, start: number): true => {
      to.scaleFrom(start, of(known.data[places[element]!]!));
      return true;
    };
    return this.#mapped(graph, linear, { shape, by });
  }

  #mapped(
    graph: Graph,
    name: string,
    { shape, by }: {
      readonly shape: readonly number[];
      /** Changes the terms from `start` on, those of an element; false where that can't be. */
      readonly by: (element: number, to: LinearTerms, start: number) => boolean;
    },
  ): LazyTrace | undefined {
    const trace = this.#lazy(graph, name);
    if (trace === undefined) return undefined;
    const index = broadcastIndex(trace.shape, shape);
    const add = (element: number, to: LinearTerms): boolean => {
      const start = to.length;
      return trace.add(index[element]!, to) && by(element, to, start);
    };
    return { shape, add };
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

  /** What an operator makes of the numbers that it turns. */
  #rotated(graph: Graph, node: NodeProto): LazyTrace | undefined {
    const operator = readRotaryEmbedding(this.#tracer, graph, node);
    if (typeof operator === "string") {
      this.#problem ??= operator;
      return undefined;
    }
    const { cosine, sine, rows, tokens } = operator;
    // Constants depend on nothing, and may be large tables.
    const depends = [cosine, sine, ...rows === undefined ? [] : [rows.positions]].some((name) =>
      !this.#tracer.value(graph, name).constant && this.#tracer.reaches(graph, name, this.#node)
    );
    const linear = depends ? undefined : this.#lazy(graph, node.input[0]!);
    const [first, second] = [cosine, sine].map((table) =>
      rows === undefined ? this.#sources.whole(graph, table) : this.#sources.rows(graph, table, { ...rows, tokens })
    );
    if (linear === undefined || first === undefined || second === undefined) return undefined;
    return turnedTrace(linear, operator, { sources: [first, second], refuse: () => this.#refuse(node) });
  }

  #source(graph: Graph, name: string): CoefficientSource | undefined {
    if (this.#tracer.value(graph, name).constant) return undefined;
    const source = this.#sources.whole(graph, name);
    if (source === undefined) this.#problem ??= `the shape of what its keys are multiplied by, ${name}, isn't known`;
    return source;
  }
}

function negate(_element: number, to: LinearTerms, start: number): true {
  to.scaleFrom(start, -1);
  return true;
}
