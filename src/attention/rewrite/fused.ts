/**
 * Fused operators in the rewritten graph: com.microsoft.MultiHeadAttention takes small queries, keys and values as they come
 * from the factors, with the original scale, so that the operator stays fused.
 *
 * @module
 */
import { TuckerdError } from "../../errors.ts";
import { withFields } from "../../onnx/codec.ts";
import { floatTensor } from "../../onnx/tensor.ts";
import { floatAttribute, intAttribute, makeNode } from "../../onnx/node.ts";
import { withDimension } from "../../onnx/value_info.ts";
import type { FusedOperator } from "../site.ts";
import type { BlockForm } from "../types.ts";
import { extractColumns } from "../weights.ts";
import { fullHeads } from "./expanded.ts";
import { writeOutputFactors } from "./reduced.ts";
import { retypeOutput } from "./retype.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Rewrites a fused operator; expanded projections and outputs around it are written by `expanded.ts` as anywhere. */
export function writeFused(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const operands = (["query", "key", "value"] as const).map((name) => operand(at, { fused, form, name }));
  const reduced = form.valueOutput === "reduced";
  const context = reduced ? at.writer.fresh(`${at.site.context}.small`) : at.site.context;
  const inputs = [...operands, ...otherInputs(fused)];
  while (inputs.at(-1) === "") inputs.pop();
  const { node } = fused;
  const name = at.writer.fresh(`${node.name}.factored`);
  const scale = Math.fround(at.site.query.scale * at.site.key.scale * fused.scale);
  const attributes = { ...attributesOf(at, fused, form), scale };
  const opType = node.domain === "com.microsoft" ? "MultiHeadAttention" : "Attention";
  at.writer.put(at.graph, makeNode(opType, inputs, [context], { name, domain: node.domain, attributes }));
  if (!reduced) return;
  const joined = fused.headsFirst
    ? at.reshape(at.transpose(context, [0, 2, 1, 3], "context.positions"), [0, 0, -1], { label: "context.joined" })
    : context;
  writeOutputFactors(at, form, joined);
}

/** What stands behind query, key and value: bias, mask and additive bias, or the standard operator's mask. */
function otherInputs({ node, mask, attentionBias }: FusedOperator): string[] {
  return node.domain === "com.microsoft" ? ["", mask ?? "", attentionBias ?? ""] : [mask ?? ""];
}

function attributesOf(
  at: SiteWriter,
  { node, headsFirst }: FusedOperator,
  form: BlockForm,
): Record<string, bigint | number> {
  const heads = BigInt(at.site.query.heads);
  if (node.domain === "com.microsoft") {
    return {
      num_heads: heads,
      mask_filter_value: floatAttribute(node, "mask_filter_value", -10000),
      unidirectional: BigInt(intAttribute(node, "unidirectional", 0)),
    };
  }
  return {
    is_causal: BigInt(intAttribute(node, "is_causal", 0)),
    softcap: floatAttribute(node, "softcap", 0),
    ...(headsFirst ? {} : { q_num_heads: heads, kv_num_heads: BigInt(form.keyValueHeads) }),
  };
}

/**
 * Gives a grouped operator a key and a value head for every query head, from factors of that many: the same operator with
 * other inputs and another head count. Its cache then holds as many heads.
 *
 * @throws TuckerdError "unsupported" if something stands between projection and operator, or heads come first.
 */
export function writeUngroupedOperator(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const { node } = fused;
  const [key, value] = [manyHeads(at, form, "key"), manyHeads(at, form, "value")];
  const { heads } = at.site.query;
  for (const past of node.input.filter((input) => at.graph.input(input)?.type?.tensorType?.shape?.dim.length === 4)) {
    at.writer.retype(at.graph.scopeOf(past)!, withDimension(at.graph.input(past)!, 1, heads));
  }
  for (const present of node.output.slice(1, 3)) {
    if (present !== "") retypeOutput(at, present, (info) => withDimension(info, 1, heads));
  }
  const attribute = node.attribute.map((entry) =>
    entry.name === "kv_num_heads" ? withFields(entry, { i: BigInt(heads) }) : entry
  );
  at.writer.put(at.graph, withFields(node, { input: node.input.with(1, key).with(2, value), attribute }));
}

/** All H heads of a grouped key or value, as the operator takes them: with the bias and scale that stand before it. */
function manyHeads(at: SiteWriter, form: BlockForm, name: "key" | "value"): string {
  const view = at.site[name];
  const { node, headsFirst } = at.site.fused!;
  if (headsFirst || view.inexact !== undefined) {
    const why = view.inexact ?? "come first in its inputs";
    throw new TuckerdError(
      "unsupported",
      `the ${name} heads of ${node.name || node.output[0]} run in groups, and ${why}: keep the stack rank at 4`,
    );
  }
  const full = at.scaled(fullHeads(at, form, name), view.scale, `${name}.scale`);
  if (view.bias === undefined) return full;
  const bias = view.bias.map((number) => number * view.scale);
  return at.node("Add", [full, constant(at, { label: `${name}.bias`, values: bias })], { label: `${name}.full` });
}

/** [batch, positions, heads · ρ] of a reduced projection, or the full one as the operator had it. */
function operand(
  at: SiteWriter,
  { fused, form, name }: { fused: FusedOperator; form: BlockForm; name: "query" | "key" | "value" },
): string {
  const view = at.site[name];
  const space = name === "value" ? form.valueOutput : form.queryKey;
  if (space === "reduced") {
    const small = at.project(name, form[name]);
    const biased = name === "query" && at.has("query.bias")
      ? at.node("Add", [small, at.factor("query.bias")], { label: "query.bias" })
      : small;
    if (!fused.headsFirst) return biased;
    const heads = name === "query" ? view.heads : form.keyValueHeads;
    return at.transpose(at.reshape(biased, [0, 0, heads, -1], { label: `${name}.heads` }), [0, 2, 1, 3], name);
  }
  if (name !== "query" && at.groups(view) < form.keyValueHeads) return manyHeads(at, form, name);
  const inside = view.projection.node === fused.node;
  const part = ["query", "key", "value"].indexOf(name);
  const full = !inside
    ? fused.node.input[part]!
    : form[name] === "kept"
    ? at.matmul(view.projection.input, originalMatrix(at, name), { label: `${name}.kept` })
    : fullHeads(at, form, name);
  const bias = inside ? view.bias : fused.biases[part];
  if (bias === undefined) return full;
  return at.node("Add", [full, constant(at, { label: `${name}.bias`, values: bias })], { label: `${name}.full` });
}

/** The original matrix of one of query, key and value, cut from the packed one. */
function originalMatrix(at: SiteWriter, name: "query" | "key" | "value"): string {
  const view = at.site[name];
  const shape = [view.projection.rows, view.columns.length];
  return constant(at, { label: `${name}.weight`, values: extractColumns(view, at.tracer.folder), shape });
}

/** A new constant in the block's element type. */
function constant(
  at: SiteWriter,
  { label, values, shape = [values.length] }: { label: string; values: Float32Array; shape?: readonly number[] },
): string {
  const name = at.writer.fresh(`${at.site.anchor.name || at.site.context}.${label}`);
  at.writer.initializer(floatTensor(name, shape, values, at.elementType));
  return name;
}
