/**
 * Where every element of a tensor comes from. Instead of matching each exporter's way to split heads, the graph's own
 * movement operators are followed backwards, element by element, to the projections and products that made the numbers.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { type NodeProto, operatorOf } from "../../onnx/node.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { isElementwise } from "./arithmetic.ts";
import { knownConstant } from "./constants.ts";
import { agreedData, type ProbeRun } from "./evaluate.ts";
import { movementOf } from "./movement.ts";
import { isNorm } from "./norms.ts";
import { type Projection, projectionOf } from "./projection.ts";
import { broadcastTrace, joinTraces, pickElements, type Source, type Trace } from "./trace.ts";
import { TraceCache } from "./trace_cache.ts";
import { broadcastIndex, type Value } from "./value.ts";

/** Traces values of a model under a pair of probe runs. */
export class Tracer {
  readonly runs: readonly [ProbeRun, ProbeRun];
  /** The folder of the model's external data. */
  readonly folder: string;
  readonly #sources: Source[] = [];
  /** Sources outlive their traces: what is traced again has the origins that it had. */
  readonly #sourcesByName = new Map<Graph, Map<string, Source>>();
  readonly #traces = new TraceCache();
  readonly #projections = new Map<NodeProto, Projection | undefined>();
  readonly #byStream = new Map<Graph, Map<string, readonly Projection[]>>();
  readonly #sourcesByTrace = new WeakMap<Trace, readonly Source[]>();
  #next = 0;

  constructor(runs: readonly [ProbeRun, ProbeRun], folder: string) {
    this.runs = runs;
    this.folder = folder;
  }

  /** What the first probe run knows of a value. */
  value(graph: Graph, name: string): Value {
    return this.runs[0].value(graph, name);
  }

  /** The trace of a value, or undefined where its shape isn't known. Whoever asks mustn't keep it beyond `forgetUnused`. */
  trace(graph: Graph, name: string): Trace | undefined {
    const scope = graph.scopeOf(name) ?? graph;
    return this.#traces.get(scope, name, () => this.#follow(scope, name));
  }

  /**
   * Gives back the memory of the traces that weren't asked for since the last call: a trace takes 20 bytes an element, all those of
   * a model's layers take more than a layer's weights. What is asked for again is followed again.
   */
  forgetUnused(): void {
    this.#traces.forgetUnused();
  }

  /** Gives back the memory of all traces. */
  forgetAll(): void {
    for (let generation = 0; generation < 2; generation++) this.#traces.forgetUnused();
  }

  /** Bytes of the traces in memory. */
  get traceBytes(): number {
    return this.#traces.bytes;
  }

  /** The source that an origin number belongs to, and the element's flat index in it. */
  sourceOf(origin: number): { readonly source: Source; readonly index: number } {
    let low = 0;
    let high = this.#sources.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#sources[middle]!.base <= origin) low = middle;
      else high = middle - 1;
    }
    const source = this.#sources[low]!;
    return { source, index: origin - source.base };
  }

  /** Whether a value depends on what a projection's node makes. */
  reaches(graph: Graph, name: string, node: NodeProto): boolean {
    const trace = this.trace(graph, name);
    return trace !== undefined && this.sourcesOf(trace).some((source) => source.node === node);
  }

  /** The sources that a trace's elements come from. */
  sourcesOf(trace: Trace): readonly Source[] {
    let known = this.#sourcesByTrace.get(trace);
    if (known === undefined) {
      const found = new Set<Source>();
      let end = 0;
      let base = 1;
      for (const origin of trace.origin) {
        if (origin < 0 || (origin >= base && origin < end)) continue;
        const { source } = this.sourceOf(origin);
        base = source.base;
        end = base + sizeOf(source.shape);
        found.add(source);
      }
      this.#sourcesByTrace.set(trace, known = [...found]);
    }
    return known;
  }

  /** The projection that a node of a graph computes, if it is one. */
  projection(graph: Graph, node: NodeProto): Projection | undefined {
    if (!this.#projections.has(node)) {
      this.#projections.set(node, projectionOf(graph, node, (name) => this.value(graph, name)));
    }
    return this.#projections.get(node);
  }

  /** The projections of a graph that multiply a value. */
  projectionsOf(graph: Graph, stream: string): readonly Projection[] {
    let byStream = this.#byStream.get(graph);
    if (byStream === undefined) {
      byStream = new Map();
      for (const node of graph.proto.node) {
        const projection = this.projection(graph, node);
        if (projection === undefined) continue;
        byStream.set(projection.stream, [...byStream.get(projection.stream) ?? [], projection]);
      }
      this.#byStream.set(graph, byStream);
    }
    return byStream.get(stream) ?? [];
  }

  #follow(graph: Graph, name: string): Trace | undefined {
    const value = this.value(graph, name);
    if (value.shape === undefined) return undefined;
    if (value.constant) return this.#constant(graph, name, value.shape);
    const node = graph.producer(name);
    if (node === undefined) return this.#source(graph, name, { kind: "input", node });
    const projection = this.projection(graph, node);
    if (projection !== undefined) return this.#projected(projection, name);
    if (PRODUCTS.has(node.opType)) return this.#source(graph, name, { kind: "product", node });
    return this.#moved(graph, node, name) ?? this.#affine(graph, node, value.shape) ??
      this.#mixed(graph, node, value.shape) ?? this.#source(graph, name, { kind: "other", node });
  }

  #source(graph: Graph, name: string, of: SourceKind): Trace {
    const { shape, base } = this.#sourceAt(graph, name, of);
    const size = sizeOf(shape);
    const origin = new Int32Array(size);
    for (let i = 0; i < size; i++) origin[i] = base + i;
    return {
      shape,
      origin,
      scale: new Float64Array(size).fill(1),
      offset: new Float64Array(size),
      inexact: undefined,
    };
  }

  #sourceAt(graph: Graph, name: string, of: SourceKind): Source {
    let byName = this.#sourcesByName.get(graph);
    if (byName === undefined) this.#sourcesByName.set(graph, byName = new Map());
    let source = byName.get(name);
    if (source === undefined) {
      const shape = this.value(graph, name).shape!;
      source = { ...of, graph, name, shape, projection: of.projection, base: this.#next };
      this.#next += sizeOf(shape);
      this.#sources.push(source);
      byName.set(name, source);
    }
    return source;
  }

  /** A projection's own scale and bias belong to the view, so that the source is stream @ W alone. */
  #projected(projection: Projection, name: string): Trace {
    const { graph, node, alpha, beta, bias, columns } = projection;
    const trace = this.#source(graph, name, { kind: "projection", node, projection });
    trace.scale.fill(alpha);
    if (bias !== undefined) {
      const known = knownConstant(graph, bias, this.folder);
      if (known === undefined) return { ...trace, inexact: `its bias ${bias} can't be worked out` };
      const { shape, data } = known;
      const index = broadcastIndex(shape, [trace.origin.length / columns, columns]);
      index.forEach((from, i) => trace.offset[i] = beta * data[from]!);
    }
    return trace;
  }

  #constant(graph: Graph, name: string, shape: readonly number[]): Trace | undefined {
    const size = sizeOf(shape);
    if (size > 1 << 20) return undefined; // a table, not a bias: no projection reaches through it
    const data = this.value(graph, name).data ?? knownConstant(graph, name, this.folder)?.data;
    return data && {
      shape,
      origin: new Int32Array(size).fill(-1),
      scale: new Float64Array(size),
      offset: Float64Array.from(data),
      inexact: undefined,
    };
  }

  #moved(graph: Graph, node: NodeProto, name: string): Trace | undefined {
    const movement = movementOf(node, node.input.map((input) => input === "" ? undefined : this.value(graph, input)));
    if (movement === undefined) return undefined;
    const { shape, index } = movement.outputs[node.output.indexOf(name)]!;
    const parts = movement.dataInputs.map((i) => this.trace(graph, node.input[i]!));
    if (!parts.every((part) => part !== undefined)) return undefined;
    const whole = parts.length === 1 ? parts[0]! : joinTraces(parts);
    if (index === undefined) return { ...whole, shape };
    return pickElements(whole, shape, index());
  }

  /** Scaling and shifting by numbers that are known and don't depend on the input's sizes. */
  #affine(graph: Graph, node: NodeProto, shape: readonly number[]): Trace | undefined {
    if (!["Add", "Sub", "Mul", "Div", "Neg"].includes(node.opType)) return undefined;
    if (node.opType === "Neg") return this.#scaled(graph, node, { shape, by: -1 });
    const known = [0, 1].map((i) => this.#numbers(graph, node.input[i]!));
    const side = known[1] !== undefined ? 0 : known[0] !== undefined && node.opType !== "Div" ? 1 : undefined;
    if (side === undefined) return undefined;
    const trace = this.trace(graph, node.input[side]!);
    if (trace === undefined) return undefined;
    const number = known[1 - side]!;
    const operand = broadcastIndex(number.shape, shape);
    const result = broadcastTrace(trace, shape);
    for (let i = 0; i < operand.length; i++) {
      const k = number.data[operand[i]!]!;
      if (node.opType === "Mul" || node.opType === "Div") {
        const factor = node.opType === "Mul" ? k : 1 / k;
        result.scale[i]! *= factor;
        result.offset[i]! *= factor;
      } else if (node.opType === "Add") {
        result.offset[i]! += k;
      } else {
        result.scale[i]! *= side === 0 ? 1 : -1;
        result.offset[i] = side === 0 ? result.offset[i]! - k : k - result.offset[i]!;
      }
    }
    return result;
  }

  #scaled(graph: Graph, node: NodeProto, to: { shape: readonly number[]; by: number }): Trace | undefined {
    const trace = this.trace(graph, node.input[0]!);
    return trace && {
      ...trace,
      shape: to.shape,
      scale: trace.scale.map((value) => value * to.by),
      offset: trace.offset.map((value) => value * to.by),
    };
  }

  /** Known numbers: constants of any size, and small results that both probes agree on. */
  #numbers(graph: Graph, name: string): { shape: readonly number[]; data: ArrayLike<number> } | undefined {
    const value = this.value(graph, name);
    if (!value.constant) return agreedData(this.runs, graph, name);
    if (value.data !== undefined) return { shape: value.shape!, data: value.data };
    if (value.shape === undefined || sizeOf(value.shape) > 1 << 20) return undefined;
    return knownConstant(graph, name, this.folder);
  }

  /**
   * Operators that mix or bend elements: the result depends mainly on its first operand that comes from a projection, or else
   * from a product.
   */
  #mixed(graph: Graph, node: NodeProto, shape: readonly number[]): Trace | undefined {
    const norm = isNorm(node);
    if (!norm && !isElementwise(node)) return undefined;
    const inputs = norm ? node.input.slice(0, 1) : node.opType === "Where" ? node.input.slice(1) : node.input;
    const traces = inputs.flatMap((input) => (input === "" ? undefined : this.trace(graph, input)) ?? []);
    const main = traces.find((trace) => this.#comesFrom(trace, "projection")) ??
      traces.find((trace) => this.#comesFrom(trace, "product"));
    if (main === undefined) return undefined;
    const inexact = main.inexact ?? `${operatorOf(node)} (${node.name || node.output[0]}) changes it`;
    return { ...broadcastTrace(main, shape), inexact };
  }

  #comesFrom(trace: Trace, kind: Source["kind"]): boolean {
    return this.sourcesOf(trace).some((source) => source.kind === kind);
  }
}

/** What a source is, before it has a place in the numbering. */
interface SourceKind {
  readonly kind: Source["kind"];
  readonly node: NodeProto | undefined;
  readonly projection?: Projection;
}

/** What makes scores and contexts. */
const PRODUCTS = new Set(["MatMul", "FusedMatMul", "Attention", "MultiHeadAttention", "GroupQueryAttention"]);
