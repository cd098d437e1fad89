/**
 * Traces that are in use. Those of one attention meet again and again while it is judged, and hardly ever afterwards; so the cache
 * keeps what was asked for lately, and memory doesn't grow with the number of layers.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { release } from "../../release.ts";
import type { Trace } from "./trace.ts";

type Traces = Map<Graph, Map<string, Trace | undefined>>;

/** Traces by graph and name of the value. */
export class TraceCache {
  /** Asked for since the last `forgetUnused`. */
  #used: Traces = new Map();
  /** Asked for before that. */
  #former: Traces = new Map();

  /** The trace of a value; `follow` finds it where it isn't known. */
  get(graph: Graph, name: string, follow: () => Trace | undefined): Trace | undefined {
    const used = this.#used.get(graph);
    if (used?.has(name)) return used.get(name);
    const former = this.#former.get(graph);
    const trace = former?.has(name) ? former.get(name) : follow();
    put(this.#used, graph, name, trace);
    return trace;
  }

  /** Bytes of the arrays in memory. */
  get bytes(): number {
    return [...arraysOf(this.#used, this.#former)].reduce((total, array) => total + array.byteLength, 0);
  }

  /** Releases the traces that nothing asked for since the last call. They may share arrays with those that stay. */
  forgetUnused(): void {
    const kept = arraysOf(this.#used);
    for (const array of arraysOf(this.#former)) if (!kept.has(array)) release(array);
    this.#former = this.#used;
    this.#used = new Map();
  }
}

function put(traces: Traces, graph: Graph, name: string, trace: Trace | undefined): void {
  let byName = traces.get(graph);
  if (byName === undefined) traces.set(graph, byName = new Map());
  byName.set(name, trace);
}

function arraysOf(...all: readonly Traces[]): Set<Int32Array | Float64Array> {
  const traces = all.flatMap((each) => [...each.values()].flatMap((byName) => [...byName.values()]));
  return new Set(traces.flatMap((trace) => trace === undefined ? [] : [trace.origin, trace.scale, trace.offset]));
}
