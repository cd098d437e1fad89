/**
 * The values whose elements are coefficients of keys: what a graph multiplies by, and rows of a table that an operator picks itself.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import type { Tracer } from "./tracer.ts";

/** Rows of a table that an operator looks up. */
export interface TableRows {
  /** Which row every token of every row of the batch takes, [B, T]; or, where they are counted, the first one, [1]. */
  readonly positions: string;
  /** Tokens take the rows that follow each other from the first one on, the same in the whole batch. */
  readonly counted: boolean;
}

/** A value whose elements are coefficients. */
export interface CoefficientSource {
  readonly graph: Graph;
  readonly name: string;
  /** Undefined where the value itself is meant; otherwise it is a table [·, n], and rows of it, [B, T, n] or counted [T, n]. */
  readonly rows: TableRows | undefined;
  readonly shape: readonly number[];
  /** Its shape under the second probe. */
  readonly otherShape: readonly number[] | undefined;
  /** First of its elements in the numbering of coefficients. */
  readonly base: number;
}

/** A source before it has a place in the numbering. */
type Unnumbered = Omit<CoefficientSource, "base">;

/** The sources of one trace, in one numbering. */
export class CoefficientSources {
  readonly #tracer: Tracer;
  readonly #sources: CoefficientSource[] = [];

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** All elements of a value; undefined where its shape isn't known. */
  whole(graph: Graph, name: string): CoefficientSource | undefined {
    const [shape, otherShape] = this.#tracer.runs.map((run) => run.value(graph, name).shape);
    return shape && this.#numbered({ graph: graph.scopeOf(name) ?? graph, name, rows: undefined, shape, otherShape });
  }

  /**
   * Rows of a table.
   *
   * @param tokens numbers of tokens under both probes
   */
  rows(
    graph: Graph,
    name: string,
    { tokens, ...rows }: TableRows & { readonly tokens: readonly number[] },
  ): CoefficientSource | undefined {
    const [shape, otherShape] = this.#tracer.runs.map((run, i) => {
      const [table, positions] = [name, rows.positions].map((value) => run.value(graph, value).shape);
      if (table?.length !== 2 || positions === undefined) return undefined;
      return [...rows.counted ? [tokens[i]!] : positions, table[1]!];
    });
    return shape && this.#numbered({ graph: graph.scopeOf(name) ?? graph, name, rows, shape, otherShape });
  }

  /** The source that a coefficient is an element of, and the element's flat index there. */
  at(number: number): { readonly source: CoefficientSource; readonly index: number } {
    const source = this.#sources.findLast(({ base }) => base <= number)!;
    return { source, index: number - source.base };
  }

  #numbered(wanted: Unnumbered): CoefficientSource {
    const key = ({ name, rows }: Unnumbered): string => `${name} ${rows?.positions} ${rows?.counted}`;
    const known = this.#sources.find((source) => source.graph === wanted.graph && key(source) === key(wanted));
    if (known !== undefined) return known;
    const last = this.#sources.at(-1);
    const source = { ...wanted, base: last === undefined ? 0 : last.base + sizeOf(last.shape) };
    this.#sources.push(source);
    return source;
  }
}
