/**
 * Query, key and value as an attention operator takes them, [batch, positions, heads · size]: small ones from the factors, or the full
 * ones that the operator had.
 *
 * @module
 */
import { TuckerdError } from "../../errors.ts";
import { nodeName, type NodeProto } from "../../onnx/node.ts";
import { floatTensor } from "../../onnx/tensor.ts";
import type { FusedOperator } from "../site.ts";
import type { BlockForm } from "../types.ts";
import { extractColumns } from "../matrices.ts";
import { fullHeads } from "./full_heads.ts";
import type { SiteWriter } from "./site_writer.ts";
import { ungroupedOperand, writeUngrouped } from "./ungroup.ts";

type Name = "query" | "key" | "value";

/** [batch, positions, heads · ρ] of a reduced projection, or the full one as the operator had it. */
export function operand(
  at: SiteWriter,
  { fused, form, name }: { readonly fused: FusedOperator; readonly form: BlockForm; readonly name: Name },
): string {
  const view = at.site[name];
  const space = name === "value" ? form.valueOutput : form.queryKey;
  if (space === "reduced") {
    const small = name === "query" ? at.projectQuery(form.query) : at.project(name, form[name]);
    if (!fused.headsFirst) return small;
    return headsApart(at, { joined: small, name, heads: name === "query" ? view.heads : form.keyValueHeads });
  }
  const inside = view.projection.node === fused.node;
  const part = ["query", "key", "value"].indexOf(name);
  const full = name !== "query" && at.groups(view) < form.keyValueHeads
    ? manyHeads(at, form, name)
    : fused.packed
    ? packedOperand(at, form, name)
    : !inside
    ? fused.node.input[part]!
    : form[name] === "kept"
    ? at.matmul(view.projection.input, originalMatrix(at, name), { label: `${name}.kept` })
    : fullHeads(at, form, name);
  const bias = inside ? view.bias : fused.biases[part];
  if (bias === undefined) return full;
  return at.node("Add", [full, constant(at, { label: `${name}.bias`, values: bias })], { label: `${name}.full` });
}

/** [batch, positions, heads · ρ] as [batch, heads, positions, ρ]. */
export function headsApart(
  at: SiteWriter,
  { joined, name, heads }: { readonly joined: string; readonly name: Name; readonly heads: number },
): string {
  return at.transpose(at.reshape(joined, [0, 0, heads, -1], { label: `${name}.heads` }), [0, 2, 1, 3], name);
}

/** Heads of key or value in what `operand` gives. */
export function operandHeads(at: SiteWriter, form: BlockForm, name: "key" | "value"): number {
  const view = at.site[name];
  const space = name === "value" ? form.valueOutput : form.queryKey;
  if (space === "reduced") return form.keyValueHeads;
  return at.groups(view) < form.keyValueHeads ? view.heads : ownHeads(at, name);
}

/** Heads of key or value as the graph's own operator takes them: it may repeat them before. */
function ownHeads(at: SiteWriter, name: "key" | "value"): number {
  const { node, packed } = at.site.fused!;
  const view = at.site[name];
  if (packed || view.projection.node === node) return at.groups(view);
  const shape = at.tracer.value(at.graph, operandOf(node, name)).shape!;
  return shape.length === 4 ? shape[1]! : shape[2]! / view.headSize;
}

function operandOf(node: NodeProto, name: "key" | "value"): string {
  return node.input[name === "key" ? 1 : 2]!;
}

/** Heads of an operand repeated, each for as many neighbours: [batch, heads, …] or [batch, positions, heads · size]. */
export function repeatedHeads(
  at: SiteWriter,
  value: string,
  { name, from, to, headsFirst }: {
    readonly name: Name;
    readonly from: number;
    readonly to: number;
    readonly headsFirst: boolean;
  },
): string {
  if (from === to) return value;
  const label = `${name}.repeated`;
  const index = at.writer.integers(Array.from({ length: to }, (_, i) => Math.floor(i * from / to)));
  const repeat = (heads: string, axis: bigint): string =>
    at.node("Gather", [heads, index], { label, attributes: { axis } });
  if (headsFirst) return repeat(value, 1n);
  const split = at.reshape(value, [0, 0, from, -1], { label: `${name}.heads` });
  return at.reshape(repeat(split, 2n), [0, 0, -1], { label: `${name}.joined` });
}

/** All H heads of a grouped key or value, as the operator takes them. */
export function manyHeads(at: SiteWriter, form: BlockForm, name: "key" | "value"): string {
  const { packed, node } = at.site.fused!;
  // A cache outside the operator grows on the way, and so does what the graph repeats.
  const outside = at.site[name].past !== undefined && at.site.fused!.past[name] === undefined;
  if (!packed && (outside || ownHeads(at, name) > at.groups(at.site[name]))) {
    if (outside && at.rank(operandOf(node, name)) === 3 && ownHeads(at, name) === at.groups(at.site[name])) {
      throw new TuckerdError(
        "unsupported",
        `the ${name} heads of ${
          nodeName(node)
        } are joined behind a cache that the graph keeps: keep the stack rank at 4`,
      );
    }
    writeUngrouped(at, form, name);
    return operandOf(node, name);
  }
  if (!packed) return ungroupedOperand(at, form, { name, operand: operandOf(node, name) });
  const { inexact } = at.site[name];
  if (inexact !== undefined) {
    throw new TuckerdError(
      "unsupported",
      `the ${name} heads of ${at.site.anchor.name || at.site.context} come packed, and ${inexact}: ` +
        `keep the stack rank at 4`,
    );
  }
  return exactHeads(at, form, name);
}

/** One part of a packed operand by itself: by its own factors, or cut out where more is done to it or its matrix is kept. */
export function packedOperand(at: SiteWriter, form: BlockForm, name: Name): string {
  const { inexact, heads, headSize } = at.site[name];
  if (form[name] !== "kept" && inexact === undefined) return exactHeads(at, form, name);
  const groups = at.groups(at.site.key);
  const start = name === "query" ? 0 : (heads + (name === "key" ? 0 : groups)) * headSize;
  const width = (name === "query" ? heads : groups) * headSize;
  const index = at.writer.integers(Array.from({ length: width }, (_, i) => start + i));
  return at.node("Gather", [at.site.fused!.node.input[0]!, index], { label: name, attributes: { axis: -1n } });
}

/** Heads through factors, with scale and bias that stand behind the projection. */
function exactHeads(at: SiteWriter, form: BlockForm, name: Name): string {
  const { scale, bias } = at.site[name];
  const full = at.scaled(fullHeads(at, form, name), scale, `${name}.scale`);
  if (bias === undefined) return full;
  const values = groupedBias(at, name, name === "query" ? at.site.query.heads : form.keyValueHeads);
  return at.node("Add", [full, constant(at, { label: `${name}.bias`, values })], { label: `${name}.full` });
}

/** Bias of the heads that run, with the scale behind it: [count · h], 0 where there is none. Heads of a group have the same. */
export function groupedBias(at: SiteWriter, name: Name, count: number): Float32Array {
  const { headSize, heads, bias, scale } = at.site[name];
  return Float32Array.from({ length: count * headSize }, (_, i) => {
    const head = Math.floor(i / headSize) * (heads / count);
    return (bias?.[head * headSize + i % headSize] ?? 0) * scale;
  });
}

/** The original matrix of one of query, key and value, cut from the packed one. */
function originalMatrix(at: SiteWriter, name: Name): string {
  const view = at.site[name];
  const shape = [view.projection.rows, view.columns.length];
  return constant(at, { label: `${name}.weight`, values: extractColumns(view, at.tracer.folder), shape });
}

/** A new constant in the block's element type. */
export function constant(
  at: SiteWriter,
  { label, values, shape = [values.length] }: {
    readonly label: string;
    readonly values: Float32Array;
    readonly shape?: readonly number[];
  },
): string {
  const name = at.writer.fresh(`${at.site.anchor.name || at.site.context}.${label}`);
  at.writer.initializer(floatTensor(name, shape, values, at.elementType));
  return name;
}
