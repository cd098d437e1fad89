/**
 * Heads in h numbers again, made through factors, and their way to where the graph goes on: order, shape, scale and bias of the
 * projection that they stand for.
 *
 * @module
 */
import type { HeadView } from "../heads.ts";
import type { Projection } from "../trace/projection.ts";
import type { BlockForm } from "../types.ts";
import type { SiteWriter } from "./site_writer.ts";

type Name = "query" | "key" | "value";

/** All heads that run, in h numbers each and without bias: [..., heads · h]. */
export function fullHeads(at: SiteWriter, form: BlockForm, name: Name): string {
  return fullHeadsOf(at, form, { name, input: at.site[name].projection.input });
}

/** The same, of another input than the projection's own. */
export function fullHeadsOf(
  at: SiteWriter,
  form: BlockForm,
  { name, input }: { readonly name: Name; readonly input: string },
): string {
  const { heads, headSize } = at.site[name];
  const count = name === "query" ? heads : form.keyValueHeads;
  const projected = at.project(name, form[name], input);
  if (form[name] !== "shared") return projected;
  const keep = keepDimensions(at, input);
  const split = at.reshape(projected, [...keep, count, -1], { label: `${name}.heads` });
  const expanded = at.matmul(split, at.factor(`${name}.expand`), { label: `${name}.expand` });
  return at.reshape(expanded, [...keep, count * headSize], { label: `${name}.joined` });
}

/**
 * What a grouped projection would give if its heads were those of one repeat: of all H heads, every (H/G)-th from `repeat`
 * on, in the projection's own columns and with its own bias.
 */
export function placedProjection(
  at: SiteWriter,
  view: HeadView,
  of: { readonly all: string; readonly repeat: number; readonly repeats: number; readonly label: string },
): string {
  const { headSize, projection } = view;
  const index = new Array<number>(projection.columns).fill(0);
  for (let i = of.repeat; i < view.heads; i += of.repeats) {
    for (let j = 0; j < headSize; j++) index[view.columns[i * headSize + j]!] = i * headSize + j;
  }
  const product = gatherLast(at, of.all, { index, label: `${of.label}.heads` });
  return biased(at, projection, { product, label: of.label, output: undefined });
}

/** Reshape sizes that keep all dimensions of an input but the last. */
export function keepDimensions(at: SiteWriter, input: string): number[] {
  return new Array<number>(at.rank(input) - 1).fill(0);
}

/** A product in the shape and with the scale and bias that the projection's own node gives it. */
export function biased(
  at: SiteWriter,
  projection: Projection,
  made: { readonly product: string; readonly label: string; readonly output: string | undefined },
): string {
  const { node, alpha, beta, bias } = projection;
  const { label, output } = made;
  const flat = at.rank(node.output[0]!) < at.rank(projection.input);
  const rows = flat ? at.reshape(made.product, [-1, projection.columns], { label: `${label}.rows` }) : made.product;
  const scaled = at.scaled(rows, alpha, `${label}.alpha`);
  if (bias === undefined) return at.node("Identity", [scaled], { label, output });
  return at.node("Add", [scaled, at.scaled(bias, beta, `${label}.beta`)], { label, output });
}

/** The last dimension's entries in another order, or some of them. */
export function gatherLast(
  at: SiteWriter,
  input: string,
  spec: { readonly index: readonly number[]; readonly label: string },
): string {
  return at.node("Gather", [input, at.writer.integers(spec.index)], { label: spec.label, attributes: { axis: -1n } });
}
