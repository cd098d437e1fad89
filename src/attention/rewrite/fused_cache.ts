/**
 * Caches that an attention operator keeps itself: one tensor each for keys and values, or one for both.
 *
 * @module
 */
import type { ValueInfoProto } from "../../onnx/node.ts";
import { withDimension } from "../../onnx/value_info.ts";
import { isLatent } from "../form.ts";
import type { FusedOperator } from "../site.ts";
import type { BlockForm } from "../types.ts";
import { headsWidth, withWidth } from "./caches.ts";
import { retypeOutput } from "./retype.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Whether keys and values of its cache are one tensor [2, B, H, positions, h], as com.microsoft.Attention has them. */
export function isJoint({ node }: FusedOperator): boolean {
  return node.opType === "Attention" && node.domain === "com.microsoft";
}

/** Past key and past value, empty where there are none. */
export function pastOf(at: SiteWriter, fused: FusedOperator): readonly [string, string] {
  const { past: { key, value } } = fused;
  if (key === undefined || !isJoint(fused)) return [key ?? "", value ?? ""];
  const part = (index: number): string =>
    at.node("Gather", [key, at.writer.integer(index)], { label: `past.${index}`, attributes: { axis: 0n } });
  return [part(0), part(1)];
}

/** Puts key and value [B, H, S, ρ] into one output [2, B, H, S, ρ]. */
export function joinPresent(at: SiteWriter, parts: readonly string[], output: string): void {
  const sizes = [at.writer.integers([2, -1, at.site.query.heads]), at.size(parts[0]!, 2), at.size(parts[0]!, 3)];
  const shape = at.node("Concat", sizes, { label: "present.shape", attributes: { axis: 0n } });
  const stacked = at.node("Concat", parts, { label: "present.parts", attributes: { axis: 0n } });
  at.node("Reshape", [stacked, shape], { label: "present", output });
}

/** z of all positions, [B, 1, S, r], in place of keys and values that are one tensor: the cache is [1, B, 1, S, r]. */
export function writeJointLatent(
  at: SiteWriter,
  { node, past: { key: past } }: FusedOperator,
  { fresh, size }: { readonly fresh: string; readonly size: number | string },
): string {
  const output = node.output[1]!;
  const change = (info: ValueInfoProto): ValueInfoProto => withDimension(withWidth(info, { heads: 1, size }, 2), 0, 1);
  retypeOutput(at, output, change);
  if (past !== undefined) at.writer.retype(at.graph.scopeOf(past)!, change(at.graph.input(past)!));
  const before = past && at.node("Gather", [past, at.writer.integer(0)], { label: "past", attributes: { axis: 0n } });
  const all = before === undefined
    ? fresh
    : at.node("Concat", [before, fresh], { label: "latent.all", attributes: { axis: 2n } });
  const sizes = [at.writer.integers([1, -1, 1]), at.size(all, 2), at.size(all, 3)];
  const shape = at.node("Concat", sizes, { label: "present.shape", attributes: { axis: 0n } });
  at.node("Reshape", [all, shape], { label: "present", output });
  return all;
}

/** The cache of an operator that keeps one holds the heads that run, in r2 numbers of what is reduced, where it doesn't hold z. */
export function retypeCache(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const heads = isJoint(fused) ? 2 : 1;
  for (const name of ["key", "value"] as const) {
    if (isLatent(form, name)) continue;
    const reduced = (name === "value" ? form.valueOutput : form.queryKey) === "reduced";
    const change = (info: ValueInfoProto): ValueInfoProto =>
      reduced ? withWidth(info, headsWidth(at, form, name), heads) : withDimension(info, heads, form.keyValueHeads);
    const [input, output] = [fused.past[name], at.site.present[name]];
    if (input !== undefined) at.writer.retype(at.graph.scopeOf(input)!, change(at.graph.input(input)!));
    if (output !== undefined) retypeOutput(at, output, change);
  }
}
