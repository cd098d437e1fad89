/**
 * The expanded space: projections go through factors, back to h numbers per head, and take the place of the original
 * products. Whatever the graph does then (bias, rotation, norm, cache) stays.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import type { HeadView } from "../heads.ts";
import type { Projection } from "../trace/projection.ts";
import type { Twin } from "../twins.ts";
import type { BlockForm } from "../types.ts";
import { isLatent } from "../form.ts";
import { biased, fullHeadsOf, gatherLast, keepDimensions } from "./full_heads.ts";
import type { SiteWriter } from "./site_writer.ts";
import { writeUngrouped } from "./ungroup.ts";

type Name = "query" | "key" | "value";

/** Rewrites query, key and value where they run expanded and aren't kept, one projection node after the other. */
export function writeExpandedProjections(at: SiteWriter, form: BlockForm): void {
  const nodes = new Map<Projection["node"], Name[]>();
  for (const name of ["query", "key", "value"] as const) {
    const space = name === "value" ? form.valueOutput : form.queryKey;
    const elsewhere = space === "reduced" || (name !== "query" && isLatent(form, name));
    if (elsewhere || form[name] === "kept" || at.site[name].fromCache) continue;
    if (name !== "query" && form.keyValueHeads > at.groups(at.site[name])) {
      if (at.site.fused === undefined) writeUngrouped(at, form, name);
      continue;
    }
    const { node } = at.site[name].projection;
    nodes.set(node, [...nodes.get(node) ?? [], name]);
  }
  for (const names of nodes.values()) writeProjection(at, form, { names, projection: at.site[names[0]!].projection });
}

/** Rewrites products of constants with the matrices of query, key and value. */
export function writeTwins(at: SiteWriter, form: BlockForm, twins: readonly Twin[]): void {
  for (const { projection, names } of twins) {
    const changed = names.filter((name) => form[name] !== "kept");
    if (changed.length > 0) writeProjection(at, form, { names: changed, projection });
  }
}

/** Rewrites the output projection's product: reduce each head (shared subspace), then down to r1 (or r) and up to d. */
export function writeExpandedOutput(at: SiteWriter, form: BlockForm): void {
  const { projection, rows } = at.site.output;
  const { heads, headSize } = at.site.query;
  const inOrder = rows.every((row, i) => row === i);
  const stream = inOrder ? projection.input : gatherLast(at, projection.input, {
    index: [...rows],
    label: "output.order",
  });
  const keep = keepDimensions(at, projection.input);
  let input = stream;
  if (form.output === "shared") {
    const split = at.reshape(stream, [...keep, heads, headSize], { label: "output.heads" });
    const reduced = at.matmul(split, at.factor("output.reduce"), { label: "output.reduce" });
    input = at.reshape(reduced, [...keep, -1], { label: "output.joined" });
  }
  const roles = form.output === "dense"
    ? ["output.dense"] as const
    : form.output === "shared"
    ? ["output.a", "up"] as const
    : ["output.a", "output.b"] as const;
  const product = roles.reduce((value, role) => at.matmul(value, at.factor(role), { label: role }), input);
  finishProjection(at, projection, { product, label: "output" });
}

/** Rewrites one product: that of the named parts, or another one with the same matrix. */
function writeProjection(
  at: SiteWriter,
  form: BlockForm,
  { names, projection }: { readonly names: readonly Name[]; readonly projection: Projection },
): void {
  const parts = names.map((name) => expandedPart(at, form, { name, input: projection.input }));
  const index = new Array<number>(projection.columns).fill(-1);
  let width = 0;
  for (const part of parts) {
    part.columns.forEach((column, i) => index[column] = width + i);
    width += part.columns.length;
  }
  // Columns of a reduced matrix aren't read any more; what else the projection makes comes from the original product.
  const kept = keptColumns(at, form, at.site[names[0]!].projection);
  const values = parts.map(({ value }) => value);
  if (kept.length > 0) {
    const original = originalProduct(at, projection, kept);
    values.push(original.value);
    const places = new Map(original.columns.map((column, i) => [column, width + i]));
    for (const column of kept) index[column] = places.get(column)!;
  }
  const label = names.join("+");
  const joined = values.length === 1 ? values[0]! : at.node("Concat", values, {
    label: `${label}.joined`,
    attributes: { axis: -1n },
  });
  const filled = index.map((from) => Math.max(from, 0));
  const inOrder = values.length === 1 && filled.every((from, i) => from === i) && filled.length === width;
  const product = inOrder ? joined : gatherLast(at, joined, { index: filled, label: `${label}.order` });
  finishProjection(at, projection, { product, label });
}

/** One matrix through its factors, back to h per head: [..., heads · h], with the original column of each of its columns. */
function expandedPart(
  at: SiteWriter,
  form: BlockForm,
  { name, input }: { readonly name: Name; readonly input: string },
): { value: string; columns: number[] } {
  const view = at.site[name];
  const heads = name === "query" ? view.heads : form.keyValueHeads;
  return { value: fullHeadsOf(at, form, { name, input }), columns: storedColumns(view, heads) };
}

/** The columns of the heads that run: one head of each group where they are fewer. */
function storedColumns(view: HeadView, heads: number): number[] {
  const repeat = view.heads / heads;
  return Array.from({ length: heads }, (_, g) => g * repeat)
    .flatMap((i) => [...view.columns.subarray(i * view.headSize, (i + 1) * view.headSize)]);
}

/** Columns of a projection that aren't rewritten: those of a matrix that is kept, and what is no part of the attention (a gate, say). */
function keptColumns(at: SiteWriter, form: BlockForm, projection: Projection): number[] {
  const replaced = new Set(
    (["query", "key", "value"] as const)
      .filter((name) => form[name] !== "kept" && at.site[name].projection.node === projection.node)
      .flatMap((name) => [...at.site[name].columns]),
  );
  return Array.from({ length: projection.columns }, (_, column) => column).filter((column) => !replaced.has(column));
}

/** The projection's product without its bias, under a new name, with the original columns that it has: at least the wanted ones. */
function originalProduct(
  at: SiteWriter,
  { node, input, stored, bias, columns }: Projection,
  wanted: readonly number[],
): { readonly value: string; readonly columns: readonly number[] } {
  if (stored.kind === "plain") {
    const upright = stored.transposed ? at.transpose(stored.name, [1, 0], "original.weight") : stored.name;
    const weight = wanted.length === columns ? upright : gatherLast(at, upright, {
      index: wanted,
      label: "original.columns",
    });
    return { value: at.matmul(input, weight, { label: "original" }), columns: wanted };
  }
  const all = Array.from({ length: columns }, (_, column) => column);
  const product = at.writer.fresh(`${node.output[0]}.original`);
  const operands = node.input.map((operand) => operand === bias ? "" : operand);
  at.writer.put(at.graph, withFields(node, { input: operands, output: [product], name: product }));
  const flat = at.rank(node.output[0]!) < at.rank(input);
  // The factors' product has the batch apart, the original one only where it was multiplied so.
  if (!flat) return { value: product, columns: all };
  const lead = Array.from({ length: at.rank(input) - 1 }, (_, axis) => at.size(input, axis));
  const parts = [...lead, at.writer.integers([columns])];
  const shape = at.node("Concat", parts, { label: "original.shape", attributes: { axis: 0n } });
  return { value: at.node("Reshape", [product, shape], { label: "original.split" }), columns: all };
}

/** Takes over the projection's output. */
function finishProjection(
  at: SiteWriter,
  projection: Projection,
  made: { readonly product: string; readonly label: string },
): void {
  biased(at, projection, { ...made, output: projection.node.output[0]! });
}
