/**
 * Gives every query head a key or value head of its own in a graph made for grouped queries (multi-head instead of grouped
 * attention): what follows the projection up to the repetition of heads (bias, rotation, norm, cache) is written once for
 * each of the H/G repeats, all on G heads as before, and the results are interleaved where the graph repeated one.
 *
 *     before: k [B, G, S, h] → rotate … → repeat → [B, H, S, h]
 *     after:  k_r [B, G, S, h] → rotate … for r < H/G, then head g·H/G + r of the result is head g of k_r
 *
 * A cache on the way holds H heads afterwards.
 *
 * @module
 */
import { TuckerdError } from "../../errors.ts";
import { withFields } from "../../onnx/codec.ts";
import { readNames } from "../../onnx/graph.ts";
import { inOrder } from "../../onnx/order.ts";
import { nodeName, type NodeProto } from "../../onnx/node.ts";
import { withDimension } from "../../onnx/value_info.ts";
import type { HeadView } from "../heads.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { isMovement } from "../trace/movement.ts";
import type { BlockForm } from "../types.ts";
import { fullHeads, placedProjection } from "./full_heads.ts";
import { writeRepeated } from "./repeated.ts";
import { retypeOutput } from "./retype.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Where a graph repeats heads: `before` holds G, `after` H heads; the same value where a product broadcasts. */
interface Repetition {
  readonly before: string;
  readonly after: string;
}

/**
 * Rewrites key or value to H heads from factors of that many.
 *
 * @throws TuckerdError "unsupported" if the graph doesn't keep heads in the second of four dimensions.
 */
export function writeUngrouped(at: SiteWriter, form: BlockForm, name: "key" | "value"): void {
  const view = at.site[name];
  const groups = at.groups(view);
  const path = pathOf(at, view, name);
  const repetition = repetitionOf(at, view, path);
  if (repetition === undefined) {
    if (writeRepeated(at, form, { name, path })) return;
    refuse(at, name, "the graph doesn't show [batch, heads, …] where it repeats them");
  }
  const { before, after } = repetition;
  const { between, copies } = copiesOf(at, form, { name, before });
  const outputs = between.flatMap((node) => node.output).filter((output) => at.graph.isOutput(output));
  for (const output of outputs) {
    interleave(at, copies, { value: output, output, groups, view });
    retypeOutput(at, output, (info) => withDimension(info, 1, view.heads));
  }
  if (!outputs.includes(after)) interleave(at, copies, { value: before, output: after, groups, view });
}

/**
 * The operand of a grouped operator, [batch, positions, G·h] or [batch, G, positions, h], with H heads from factors of that many. What
 * follows the projection (bias, norm, rotation) is written once for each repeat.
 */
export function ungroupedOperand(
  at: SiteWriter,
  form: BlockForm,
  { name, operand }: { readonly name: "key" | "value"; readonly operand: string },
): string {
  const { headSize, heads } = at.site[name];
  const groups = at.groups(at.site[name]);
  const headsFirst = at.rank(operand) === 4;
  const split = headsFirst ? [0, groups, 1, -1, headSize] : [0, 0, groups, 1, headSize];
  const parts = copiesOf(at, form, { name, before: operand }).copies.map((names) =>
    at.reshape(names.get(operand)!, split, { label: `${name}.repeat` })
  );
  const attributes = { axis: headsFirst ? 2n : 3n };
  const stacked = at.node("Concat", parts, { label: `${name}.repeats`, attributes });
  const joined = headsFirst ? [0, heads, -1, headSize] : [0, 0, heads * headSize];
  return at.reshape(stacked, joined, { label: `${name}.full` });
}

/** What stands between the projection and `before`, and its copies for each repeat: new names by old ones. */
function copiesOf(
  at: SiteWriter,
  form: BlockForm,
  { name, before }: { readonly name: "key" | "value"; readonly before: string },
): { readonly between: readonly NodeProto[]; readonly copies: readonly ReadonlyMap<string, string>[] } {
  const view = at.site[name];
  const groups = at.groups(view);
  const repeats = view.heads / groups;
  const first = view.projection.node.output[0]!;
  const between = nodesBetween(at, first, before);
  const mixing = between.find((node) => mixesHeads(at, node, view));
  if (mixing !== undefined) refuse(at, name, `${nodeName(mixing)} runs over all ${groups} of them together`);
  const reader = otherReader(at, view, { between, towards: pathOf(at, view, name) });
  if (reader !== undefined) refuse(at, name, `${nodeName(reader)} reads them too`);
  const all = fullHeads(at, form, name);
  const copies = Array.from({ length: repeats }, (_, repeat) => {
    const projected = placedProjection(at, view, { all, repeat, repeats, label: `${name}.${repeat}` });
    return copyNodes(at, between, { made: [first, projected], repeats, repeat });
  });
  return { between, copies };
}

/** Grouped heads that can't become one for each query head. */
function refuse(at: SiteWriter, name: "key" | "value", because: string): never {
  throw new TuckerdError(
    "unsupported",
    `the ${name} heads of ${nodeName(at.site.anchor)} can't become one for each query head, since ${because}: ` +
      "keep the stack rank at 4",
  );
}

/**
 * Whether a norm is taken over the joined heads of a projection: a copy for each repeat would take other ones. A single head has
 * a dimension of its own where the norm is the head's.
 */
function mixesHeads(at: SiteWriter, node: NodeProto, view: HeadView): boolean {
  const groups = at.groups(view);
  const norm = node.opType.startsWith("Reduce") || node.opType.endsWith("Normalization");
  const shape = at.tracer.value(at.graph, node.input[0]!).shape;
  return norm && shape?.at(-1) === groups * view.headSize && (groups > 1 || shape.length < 4);
}

/**
 * What reads grouped heads beside the attention, from the projection on: it would find the heads that were before, or another
 * number of them. Other columns of a packed projection may be read, and shapes.
 */
function otherReader(
  at: SiteWriter,
  view: HeadView,
  { between, towards }: { readonly between: readonly NodeProto[]; readonly towards: readonly string[] },
): NodeProto | undefined {
  const own = new Set(between);
  const passes = (node: NodeProto): boolean =>
    own.has(node) || node.opType === "Shape" || node.opType === "Size" ||
    node.output.some((output) => towards.includes(output) || output === at.site.scores || output === at.site.context) ||
    isMovement(node) && !node.output.some((output) => holdsHeads(at, view, output));
  const values = [view.projection.node.output[0]!, ...between.flatMap((node) => node.output)];
  return values.filter((value) => holdsHeads(at, view, value))
    .flatMap((value) => at.graph.uses(value)).map(({ node }) => node).find((node) => !passes(node));
}

/** Whether a value holds some of a view's columns. */
function holdsHeads(at: SiteWriter, view: HeadView, value: string): boolean {
  const trace = at.tracer.trace(at.graph, value);
  const source = trace && at.tracer.sourcesOf(trace).find(({ node }) => node === view.projection.node);
  if (trace === undefined || source === undefined) return false;
  const columns = new Set(view.columns);
  const end = source.base + sizeOf(source.shape);
  return trace.origin.some((origin) =>
    origin >= source.base && origin < end && columns.has((origin - source.base) % view.projection.columns)
  );
}

/** Names of the values from the product back to the projection. */
function pathOf(at: SiteWriter, view: HeadView, name: "key" | "value"): string[] {
  const product = at.graph.producer(name === "key" ? at.site.scores : at.site.context)!;
  // An operator has the value behind the key.
  const path = [product.input[at.site.fused !== undefined && name === "value" ? 2 : 1]!];
  for (let node = at.graph.producer(path.at(-1)!); node !== undefined && node !== view.projection.node;) {
    const next = node.input.find((input) => input !== "" && at.tracer.reaches(at.graph, input, view.projection.node));
    if (next === undefined) break;
    path.push(next);
    node = at.graph.producer(next);
  }
  return path;
}

/** Where the path has one head for each group, and where it has them all. */
function repetitionOf(at: SiteWriter, view: HeadView, path: readonly string[]): Repetition | undefined {
  const groups = at.groups(view);
  const shapes = path.map((value) => at.tracer.value(at.graph, value).shape ?? []);
  const b = shapes.findIndex((shape) => shape.length === 4 && shape[1] === groups);
  const [batch, , rows, columns] = shapes[b] ?? [];
  const a = shapes.findLastIndex((shape, i) =>
    i <= b && String(shape) === String([batch, i === b ? groups : view.heads, rows, columns]) && i < Math.max(b, 1)
  );
  const inOrder = view.columns.every((column, i) => {
    const head = Math.floor(i / view.headSize);
    const first = head - head % (view.heads / groups);
    return column === view.columns[first * view.headSize + i % view.headSize];
  });
  if (b === -1 || a === -1 || !inOrder || sizeOf(shapes[b]!) === 0) return undefined;
  return { before: path[b]!, after: path[a]! };
}

/** The nodes through which `before` depends on the projection, in order. */
function nodesBetween(at: SiteWriter, projected: string, before: string): NodeProto[] {
  const dependent = new Set([projected]);
  const nodes = inOrder(at.graph.proto.node).filter((node) => {
    const depends = readNames(node).some((name) => dependent.has(name));
    if (depends) { for (const output of node.output) dependent.add(output); }
    return depends;
  });
  const needed = new Set([before]);
  const kept = nodes.toReversed().filter((node) => {
    const reaches = node.output.some((name) => needed.has(name));
    if (reaches) { for (const input of readNames(node)) if (dependent.has(input)) needed.add(input); }
    return reaches;
  });
  return kept.toReversed();
}

/** Copies nodes onto another projected value and the past heads of one repeat; returns new names by old ones. */
function copyNodes(
  at: SiteWriter,
  nodes: readonly NodeProto[],
  copy: { readonly made: readonly [string, string]; readonly repeat: number; readonly repeats: number },
): ReadonlyMap<string, string> {
  const names = new Map<string, string>([copy.made]);
  for (const node of nodes) {
    for (const input of node.input) {
      const past = names.has(input) ? undefined : pastBehind(at, input);
      if (past !== undefined) names.set(input, pastHeads(at, { ...copy, past, value: input }));
    }
    for (const output of node.output) if (output !== "") names.set(output, at.writer.fresh(`${output}.${copy.repeat}`));
    const rename = (name: string): string => names.get(name) ?? name;
    const moved = {
      input: node.input.map(rename),
      output: node.output.map(rename),
      name: at.writer.fresh(`${node.name}.${copy.repeat}`),
    };
    at.writer.put(at.graph, withFields(node, moved));
  }
  return names;
}

/**
 * The past of key or value that a value holds: an input of the model with four dimensions, as it is or behind nodes that
 * leave every element in its place (exporters join it with nothing, or copy it).
 */
function pastBehind(at: SiteWriter, name: string): string | undefined {
  const shape = at.tracer.value(at.graph, name).shape;
  const trace = shape?.length === 4 ? at.tracer.trace(at.graph, name) : undefined;
  if (trace === undefined || trace.inexact !== undefined || trace.origin.length === 0 || trace.origin[0]! < 0) {
    return undefined;
  }
  const { source } = at.tracer.sourceOf(trace.origin[0]!);
  const whole = String(source.shape) === String(shape) &&
    trace.origin.every((origin, i) => origin === source.base + i && trace.scale[i] === 1 && trace.offset[i] === 0);
  return whole && source.kind === "input" ? source.name : undefined;
}

/** The heads of a past with H heads that belong to one repeat. */
function pastHeads(
  at: SiteWriter,
  { past, value, repeat, repeats }: {
    readonly past: string;
    readonly value: string;
    readonly repeat: number;
    readonly repeats: number;
  },
): string {
  const { heads } = at.site.query;
  at.writer.retype(at.graph.scopeOf(past)!, withDimension(at.graph.input(past)!, 1, heads));
  const index = Array.from({ length: heads / repeats }, (_, g) => g * repeats + repeat);
  return at.node("Gather", [value, at.writer.integers(index)], { label: `past.${repeat}`, attributes: { axis: 1n } });
}

/** Interleaves the copies of a value [B, G, …] to [B, H, …], as `output`. */
function interleave(
  at: SiteWriter,
  copies: readonly ReadonlyMap<string, string>[],
  spec: { readonly value: string; readonly output: string; readonly groups: number; readonly view: HeadView },
): void {
  const { headSize, heads } = spec.view;
  const last = at.tracer.runs.every((run) => run.value(at.graph, spec.value).shape!.at(-1) === headSize);
  const rest = last ? [-1, headSize] : [headSize, -1];
  const parts = copies.map((names) =>
    at.reshape(names.get(spec.value)!, [0, spec.groups, 1, ...rest], { label: "repeat" })
  );
  const stacked = at.node("Concat", parts, { label: "repeats", attributes: { axis: 2n } });
  at.reshape(stacked, [0, heads, ...rest], { label: "heads", output: spec.output });
}
