/**
 * Nodes that read only the shape of a value that a rewrite removes. They would keep the original projections alive (or break,
 * once a cache holds fewer numbers), so their result is put together from values that stay.
 *
 * @module
 */
import { intAttribute, type NodeProto } from "../../onnx/node.ts";
import { valuesBehind, valuesBetween } from "../space.ts";
import { inOrder } from "../../onnx/order.ts";
import type { SiteWriter } from "./site_writer.ts";

/** A size: `times` the sum of dimensions of values that stay, or `times` alone. */
interface SizeOrigin {
  readonly times: number;
  readonly terms: readonly { readonly value: string; readonly axis: number }[];
}

/**
 * Replaces every Shape of a value between projections and products, and between context and output. A Shape with a size that is neither fixed nor made of
 * batch, positions and past stays.
 */
export function replaceShapeReaders(at: SiteWriter): void {
  const order = new Map(inOrder(at.graph.proto.node).map((node, i) => [node, i]));
  for (const name of [...valuesBetween(at.site), ...valuesBehind(at.site)]) {
    for (const { node, graph } of at.graph.uses(name)) {
      if (node.opType === "Shape" && graph === at.graph) replaceShape(at, node, { name, order });
    }
  }
}

function replaceShape(
  at: SiteWriter,
  node: NodeProto,
  { name, order }: { readonly name: string; readonly order: ReadonlyMap<NodeProto, number> },
): void {
  const [first, second] = at.tracer.runs.map((run) => run.value(at.graph, name).shape);
  if (first === undefined || second === undefined) return;
  const start = intAttribute(node, "start", 0);
  const end = intAttribute(node, "end", first.length);
  // Sizes come from what is made before: what is made after may depend on the very shape.
  const made = ({ value }: { readonly value: string }): number => order.get(at.graph.producer(value)!) ?? -1;
  const terms = candidates(at).filter((each) => each.every((term) => made(term) < order.get(node)!));
  const sizes = first.slice(start, end).map((size, i) => originOf(at, [size, second.slice(start, end)[i]!], terms));
  if (!sizes.every((size) => size !== undefined)) return;
  const parts = sizes.map((size) => writeSize(at, size));
  at.node("Concat", parts, { label: "sizes", output: node.output[0]!, attributes: { axis: 0n } });
}

/** The first formula that gives a size under both probes. */
function originOf(
  at: SiteWriter,
  [first, second]: readonly [number, number],
  candidates: readonly SizeOrigin["terms"][],
): SizeOrigin | undefined {
  if (first === second) return { times: first, terms: [] };
  for (const terms of candidates) {
    const [a, b] = at.tracer.runs.map((run) =>
      terms.reduce((sum, { value, axis }) => sum + (run.value(at.graph, value).shape?.[axis] ?? NaN), 0)
    ) as [number, number];
    const times = first / a;
    if (Number.isInteger(times) && times * b === second) return { times, terms };
  }
  return undefined;
}

function writeSize(at: SiteWriter, { times, terms }: SizeOrigin): string {
  if (terms.length === 0) return at.writer.integers([times]);
  const [first, ...others] = terms.map(({ value, axis }) => at.size(value, axis));
  const sum = others.reduce((left, right) => at.node("Add", [left, right], { label: "sizes.sum" }), first!);
  return times === 1 ? sum : at.node("Mul", [sum, at.writer.integers([times])], { label: "sizes.product" });
}

/** Sizes that a shape may be made of: batch, positions of query and key, past, and past with positions. */
function candidates(at: SiteWriter): SizeOrigin["terms"][] {
  const { query, key, value } = at.site;
  // Keys that are all from a cache were projected in another graph.
  const streams = [query, key].flatMap(({ fromCache, projection }) => fromCache ? [] : projection.input);
  const pasts = [key.past, value.past].filter((past) => past !== undefined);
  return [
    ...streams.flatMap((stream) => Array.from({ length: at.rank(stream) - 1 }, (_, axis) => [{ value: stream, axis }])),
    ...pasts.flatMap((past) => [
      [{ value: past, axis: 2 }],
      [{ value: past, axis: 2 }, { value: key.projection.input, axis: 1 }],
    ]),
  ];
}
