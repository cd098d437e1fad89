/**
 * The operator RotaryEmbedding, of com.microsoft and of the standard (opset 23): of each head the first numbers are turned in pairs,
 * by cosines and sines that are given for every token, or as tables with a row for each position.
 *
 *     halves        number j < n turns with j + n          cos_j x_j − sin_j x_{j+n}        sin_j x_j + cos_j x_{j+n}
 *     interleaved   number 2j with 2j + 1                  cos_j x_2j − sin_j x_{2j+1}      sin_j x_2j + cos_j x_{2j+1}
 *
 * with n the width of the tables. What stands behind the first 2n numbers stays.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, intAttribute, nodeName, type NodeProto, operatorOf } from "../../onnx/node.ts";
import type { CoefficientSource, TableRows } from "./coefficient_sources.ts";
import type { LazyTrace } from "./lazy_trace.ts";
import { type LinearTerms, MOST_TERMS } from "./linear_terms.ts";
import type { Tracer } from "./tracer.ts";
import { broadcastIndex } from "./value.ts";

/** What one operator does to its first input. */
export interface RotaryOperator {
  /** Sizes of the input: [B, heads, T, h] or [B, T, heads · h]. */
  readonly shape: readonly number[];
  readonly headSize: number;
  readonly interleaved: boolean;
  readonly cosine: string;
  readonly sine: string;
  /** Width of the tables: half of the numbers of a head that are turned. */
  readonly pairs: number;
  /** Rows of the tables; undefined where cosines and sines are given for every token, [B, T, pairs]. */
  readonly rows: TableRows | undefined;
  /** Numbers of tokens under both probes. */
  readonly tokens: readonly number[];
}

/** How a turned number is made. */
interface Turn {
  /** Its pair's place in [B, T, pairs]. */
  readonly pair: number;
  /** Where the other number of the pair stands, from this one. */
  readonly other: number;
  /** What the sine is multiplied by. */
  readonly sign: 1 | -1;
}

/** Whether a node is one. */
export function isRotaryEmbedding(node: NodeProto): boolean {
  return node.opType === "RotaryEmbedding";
}

/** Reads an operator, or says why it can't be followed. */
export function readRotaryEmbedding(tracer: Tracer, graph: Graph, node: NodeProto): RotaryOperator | string {
  const what = `${operatorOf(node)} (${nodeName(node)})`;
  const contributed = node.domain === "com.microsoft";
  // What they mean differs from provider to provider of ONNX Runtime.
  if (intAttribute(node, "is_packed_batching", 0) === 1) return `${what} packs the batch`;
  if (floatAttribute(node, "scale", 1) !== 1) return `${what} has a scale of its own`;
  const [input, second, third, fourth] = node.input as [string, string, string, string | undefined];
  const [cosine, sine, positions] = contributed ? [third, fourth!, second] : [second, third, fourth || undefined];
  const [shape, other] = tracer.runs.map((run) => run.value(graph, input).shape);
  const pairs = tracer.value(graph, cosine).shape?.at(-1);
  if (shape === undefined || other === undefined || pairs === undefined) return `the shapes of ${what} aren't known`;
  const fixed = positions === undefined && [cosine, sine].some((name) => tracer.value(graph, name).constant);
  if (fixed) return `${what} rotates by constants, by the same ones in every call`;
  const rank = positions === undefined ? 2 : tracer.value(graph, positions).shape?.length;
  if (rank !== 1 && rank !== 2) return `the shape of the positions ${positions} isn't known`;
  const named = intAttribute(node, "rotary_embedding_dim", 0);
  const headSize = shape.length === 4
    ? shape[3]!
    : contributed && named === 0
    ? 2 * pairs
    : shape[2]! / intAttribute(node, "num_heads", 1);
  const axis = shape.length === 4 ? 2 : 1;
  return {
    shape,
    headSize,
    interleaved: intAttribute(node, "interleaved", 0) === 1,
    cosine,
    sine,
    pairs,
    rows: positions === undefined ? undefined : { positions, counted: rank === 1 },
    tokens: [shape[axis]!, other[axis]!],
  };
}

/** What the operator makes of a trace of its input, with the sources of its cosines and sines. `refuse` is called where a pair isn't linear. */
export function turnedTrace(
  linear: LazyTrace,
  operator: RotaryOperator,
  { sources, refuse }: {
    readonly sources: readonly [cosine: CoefficientSource, sine: CoefficientSource];
    readonly refuse: () => void;
  },
): LazyTrace {
  const { shape, pairs, tokens } = operator;
  const [cosineAt, sineAt] = sources.map(({ base, shape: from }) =>
    broadcastIndex(from, [shape[0]!, tokens[0]!, pairs]).map((place) => base + place)
  ) as [Int32Array, Int32Array];
  const turnOf = turnsOf(operator);
  const add = (element: number, to: LinearTerms): boolean => {
    const turn = turnOf(element);
    if (turn === undefined) return linear.add(element, to);
    const start = to.length;
    if (!linear.add(element, to)) return false;
    const middle = to.length;
    if (!linear.add(element + turn.other, to)) return false;
    to.scaleFrom(middle, turn.sign);
    const single = to.turnFrom(start, cosineAt[turn.pair]!, middle) && to.turnFrom(middle, sineAt[turn.pair]!);
    const fits = single && to.length - start <= MOST_TERMS;
    if (!fits) refuse();
    return fits;
  };
  return { shape, add };
}

/** For every element of the result how it is turned; undefined where it stays. */
function turnsOf(
  { shape, headSize, interleaved, pairs, tokens: [tokens] }: RotaryOperator,
): (element: number) => Turn | undefined {
  const [width, lines] = [shape.at(-1)!, tokens! * (shape.length === 4 ? shape[1]! : 1)];
  return (element) => {
    const j = element % width % headSize;
    if (j >= 2 * pairs) return undefined;
    const line = Math.floor(element / width); // of [B, heads, T] or [B, T]
    const place = Math.floor(line / lines) * tokens! + line % tokens!; // of [B, T]
    const second = interleaved ? j % 2 === 1 : j >= pairs;
    const apart = interleaved ? 1 : pairs;
    return {
      pair: place * pairs + (interleaved ? Math.floor(j / 2) : j % pairs),
      other: second ? -apart : apart,
      sign: second ? 1 : -1,
    };
  };
}
