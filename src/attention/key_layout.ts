/**
 * Where keys stand in what reads them: the second operand of a product, or an operand of an operator.
 *
 * @module
 */
import type { Site } from "./site.ts";
import type { Tracer } from "./trace/tracer.ts";
import { broadcastIndex } from "./trace/value.ts";

/** Which element is number j of a head at a position. */
export type KeyElement = (row: number, head: number, position: number, j: number) => number;

/** How the elements of keys are ordered. */
export interface KeyLayout {
  /** Those of the cache and the new ones, as far as they stand there. */
  readonly positions: number;
  readonly element: KeyElement;
}

/** Sizes of the value that holds keys. */
interface Sizes {
  readonly shape: readonly number[];
  readonly batch: number;
}

/** Name of the value in which a site's product or operator reads its keys. */
export function keysOf({ graph, scores, fused }: Site): string {
  return fused === undefined ? graph.producer(scores)!.input[1]! : fused.node.input[fused.packed ? 0 : 1]!;
}

/** Keys as the product of scores reads them; undefined where they aren't heads of positions. */
export function productLayout(
  tracer: Tracer,
  { graph, key, scores }: Site,
  { shape, batch }: Sizes,
): KeyLayout | undefined {
  const lead = tracer.value(graph, scores).shape!.slice(0, -2);
  const [a, b] = shape.slice(-2) as [number, number];
  const { heads, headSize: h } = key;
  const transposed = readsAcross(tracer, { graph, scores });
  const positions = transposed ? b : a;
  const stacked = String(lead) === String([batch, heads]) || String(lead) === String([batch * heads]);
  if (!stacked || (transposed ? a : b) !== h) return undefined;
  const matrices = broadcastIndex(shape.slice(0, -2), lead);
  return {
    positions,
    element: (row, head, position, j) => {
      const start = matrices[row * heads + head]! * a * b;
      return transposed ? start + j * positions + position : start + position * h + j;
    },
  };
}

/** Whether the product of scores reads keys as [h, positions]: their last size is that of the scores in both probes. */
function readsAcross(tracer: Tracer, { graph, scores }: Pick<Site, "graph" | "scores">): boolean {
  const key = graph.producer(scores)!.input[1]!;
  return tracer.runs.every((run) => run.value(graph, scores).shape!.at(-1) === run.value(graph, key).shape!.at(-1));
}

/**
 * Keys as an operator reads them: [B, G, positions, h], [B, positions, G·h], or between queries and values in [B, positions, (H + 2G)·h];
 * undefined where they have other shapes.
 */
export function operatorLayout({ key, fused }: Site, { shape, batch }: Sizes): KeyLayout | undefined {
  const { heads, headSize: h } = key;
  const { headsFirst, packed } = fused!;
  const positions = shape[headsFirst ? 2 : 1]!;
  const width = shape.at(-1)!;
  const groups = headsFirst ? shape[1]! : packed ? (width / h - heads) / 2 : width / h;
  const fits = shape.length === (headsFirst ? 4 : 3) && shape[0] === batch && heads % groups === 0 &&
    (!headsFirst || width === h);
  if (!fits) return undefined;
  const start = packed ? heads * h : 0;
  return {
    positions,
    element: (row, head, position, j) => {
      const group = Math.floor(head * groups / heads);
      return headsFirst
        ? ((row * groups + group) * positions + position) * h + j
        : (row * positions + position) * width + start + group * h + j;
    },
  };
}
