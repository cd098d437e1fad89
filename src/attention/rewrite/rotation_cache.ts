/**
 * The cache of layers whose keys are rotated: z, and beside it in the first of those that are rotated alike the coefficients of each
 * position (cosines and sines), as the graph computes them in the call in which its token comes.
 *
 * @module
 */
import { writeCache } from "./caches.ts";
import { isEveryIndex } from "../matrices.ts";
import type { GraphRotation } from "../rotation.ts";
import { gatherLast } from "./full_heads.ts";
import type { TableRows } from "../trace/coefficient_sources.ts";
import type { SiteWriter } from "./site_writer.ts";

/** What the graph of a site does to its keys, before its operator where there is one. */
export function graphRotation(at: SiteWriter): GraphRotation {
  const { rotation } = at.rotated;
  const own = rotation.inside ? rotation.before : rotation;
  if (own === undefined) throw new TypeError("nothing is done to the keys before their operator");
  return own;
}

/** z of all positions, [B, 1, S, r]. The cache that the model gives out holds their coefficients too, where this layer keeps them. */
export function writeRotatedCache(at: SiteWriter, fresh: () => string, size: number | string): string {
  const { rotation, keepsCoefficients } = at.rotated;
  if (!keepsCoefficients) return writeCache(at, "key", fresh, { heads: 1, size });
  const { count, group } = rotation;
  const joined = (): string => {
    const parts = [fresh(), freshCoefficients(at)];
    return at.node("Concat", parts, { label: "latent.rotated", attributes: { axis: -1n } });
  };
  const width = typeof size === "number" ? size + count : `${size} + ${count}`;
  const all = writeCache(at, "key", joined, { heads: 1, size: width });
  const [start, end, last, axis] = [0, -count, Number.MAX_SAFE_INTEGER, 3].map((number) =>
    at.writer.integers([number])
  );
  at.shared(coefficientsOf(group), () => at.node("Slice", [all, end!, last!, axis!], { label: "rotation.all" }));
  return at.node("Slice", [all, start!, end!, axis!], { label: "latent.all" });
}

/** The coefficients of all positions, [B, 1, S, count], as the first layer that is rotated so keeps them. */
export function allCoefficients(at: SiteWriter): string {
  return at.shared(coefficientsOf(at.rotated.rotation.group), () => {
    throw new TypeError("no layer before keeps the coefficients of the rotation");
  });
}

/** Some of the coefficients of all positions, [B, 1, S, ·]. */
export function pickedCoefficients(at: SiteWriter, index: readonly number[]): string {
  return at.shared(
    `${coefficientsOf(at.rotated.rotation.group)} at ${index}`,
    () => gatherLast(at, allCoefficients(at), { index, label: "rotation" }),
  );
}

/** Coefficients of the new tokens, [B, 1, T, count]. */
export function freshCoefficients(at: SiteWriter): string {
  const { coefficients, order } = graphRotation(at);
  const ones = at.writer.integers([1, 1, 1]);
  const shape = at.node("Concat", [at.size(at.site.key.projection.input, 0), ones], {
    label: "rotation.batch",
    attributes: { axis: 0n },
  });
  const parts = coefficients.map(({ name, rows: picks, axes, batched, width, index }) => {
    const given = picks === undefined ? name : tableRows(at, name, picks);
    const typed = at.node("Cast", [given], { label: "rotation.typed", attributes: { to: BigInt(at.elementType) } });
    const across = isEveryIndex(axes) ? typed : at.transpose(typed, axes, "rotation.across");
    const rows = at.reshape(across, [batched ? 0 : 1, 1, -1, width], { label: "rotation.rows" });
    const whole = isEveryIndex(index, width);
    const picked = whole ? rows : gatherLast(at, rows, { index, label: "rotation.picked" });
    return at.node("Expand", [picked, shape], { label: "rotation.new" });
  });
  const joined = parts.length === 1
    ? parts[0]!
    : at.node("Concat", parts, { label: "rotation.joined", attributes: { axis: -1n } });
  return isEveryIndex(order) ? joined : gatherLast(at, joined, { index: order, label: "rotation.order" });
}

/** Rows of a table that an operator would look up for the new tokens, [B, T, n] or counted [T, n]. */
function tableRows(at: SiteWriter, table: string, { positions, counted }: TableRows): string {
  const index = counted ? countedFrom(at, positions) : positions;
  return at.node("Gather", [table, index], { label: "rotation.table.rows", attributes: { axis: 0n } });
}

/** As many numbers as there are new tokens, from the first one [1] on: [T]. */
function countedFrom(at: SiteWriter, first: string): string {
  return at.shared(`tokens from ${first}`, () => {
    const tokens = at.node("Squeeze", [at.size(at.site.key.projection.input, 1)], { label: "rotation.tokens" });
    const limits = [at.writer.integer(0), tokens, at.writer.integer(1)];
    const steps = at.node("Range", limits, { label: "rotation.steps" });
    return at.node("Add", [first, steps], { label: "rotation.counted" });
  });
}

function coefficientsOf(group: string): string {
  return `rotation ${group}`;
}
