/**
 * Fused operators in the rewritten graph: com.microsoft.MultiHeadAttention and the standard's Attention take small queries, keys and
 * values as they come from the factors, with the original scale, so that the operator stays fused, its cache included.
 *
 * Plain operators stay plain. Measured on the CPU with a 1024-wide decoder at (256,16,4), one thread: MultiHeadAttention in their
 * place changes a prompt of 128 or 512 tokens by 2% at most, and makes decoding one token 5 to 14% slower.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import { floatAttribute, intAttribute, makeNode } from "../../onnx/node.ts";
import type { FusedOperator } from "../site.ts";
import { isCached } from "../cache.ts";
import type { BlockForm, CachedName } from "../types.ts";
import { isJoint, joinPresent, pastOf, retypeCache } from "./fused_cache.ts";
import { headsApart, manyHeads, operand, operandHeads, packedOperand, repeatedHeads } from "./operands.ts";
import { cachedHeads, writeOutputFactors } from "./reduced.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Rewrites a fused operator; expanded projections and outputs around it are written by `expanded.ts` as anywhere. */
export function writeFused(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const reduced = form.valueOutput === "reduced";
  // From joined value heads of a size that isn't a number, ONNX works out contexts of size 0, and ONNX Runtime then lets layers of
  // different ranks share memory. From heads of their own it doesn't.
  const joined = (["key", "value"] as const).filter((name) => keepsOutside(at, fused, name));
  const small = joined.filter((name) => (name === "key" ? form.queryKey : form.valueOutput) === "reduced");
  const apart = (reduced || small.length > 0) && !fused.headsFirst && fused.node.domain !== "com.microsoft";
  const headsFirst = apart || fused.headsFirst;
  const { heads } = at.site.query;
  const own = { query: heads, key: operandHeads(at, form, "key"), value: operandHeads(at, form, "value") };
  // The graph may repeat heads of one before the operator, and factors make those of the other once for a group.
  const groups = fused.node.domain === "com.microsoft" ? heads : Math.max(own.key, own.value);
  const operands = (["query", "key", "value"] as const).map((name) => {
    const to = name === "query" ? heads : groups;
    if (name !== "query" && small.includes(name)) {
      return repeatedHeads(at, cachedHeads(at, name, form), { name, from: own[name], to, headsFirst });
    }
    const made = operand(at, { fused, form, name });
    const value = apart ? headsApart(at, { joined: made, name, heads: own[name] }) : made;
    return repeatedHeads(at, value, { name, from: own[name], to, headsFirst });
  });
  const context = reduced || apart ? at.writer.fresh(`${at.site.context}.small`) : at.site.context;
  const inputs = [...operands, ...otherInputs(fused, pastOf(at, fused))];
  while (inputs.at(-1) === "") inputs.pop();
  const { node } = fused;
  const name = at.writer.fresh(`${node.name}.factored`);
  // Expanded operands are the graph's own, scaled already.
  const before = form.queryKey === "reduced" ? at.site.query.scale * at.site.key.scale : 1;
  const scale = Math.fround(before * fused.scale);
  const attributes = { ...attributesOf(at, { ...fused, headsFirst }, groups), scale };
  const opType = node.domain === "com.microsoft" ? "MultiHeadAttention" : "Attention";
  const present = isJoint(fused) && node.output[1]
    ? ["key", "value"].map((part) => at.writer.fresh(`${node.output[1]}.${part}`))
    : node.output.slice(1, 3);
  at.writer.put(at.graph, makeNode(opType, inputs, [context, ...present], { name, domain: node.domain, attributes }));
  if (isJoint(fused) && node.output[1]) joinPresent(at, present, node.output[1]);
  if (joined.length === 0) retypeCache(at, fused, { ...form, keyValueHeads: groups });
  if (!reduced && !apart) return;
  const inPositions = (output?: string): string =>
    at.reshape(at.transpose(context, [0, 2, 1, 3], "context.positions"), [0, 0, -1], {
      label: "context.joined",
      output,
    });
  if (!reduced) inPositions(at.site.context);
  else writeOutputFactors(at, form, headsFirst ? inPositions() : context);
}

/** Whether the graph itself puts the past before new keys or values and gives both out, and the operator only reads them. */
export function keepsOutside(at: SiteWriter, { node, past }: FusedOperator, name: CachedName): boolean {
  const present = at.site.present[name];
  return isCached(at.site, name) && past[name] === undefined &&
    (present === undefined || !node.output.includes(present));
}

/** What stands behind query, key and value: bias, mask, additive bias and past, or the standard operator's mask, past and lengths. */
function otherInputs({ node, mask, attentionBias }: FusedOperator, cache: readonly string[]): string[] {
  return node.domain === "com.microsoft"
    ? ["", mask ?? "", attentionBias ?? "", ...cache]
    : [mask ?? "", ...cache, node.input[6] ?? ""];
}

function attributesOf(
  at: SiteWriter,
  { node, headsFirst }: FusedOperator,
  groups: number,
): Record<string, bigint | number> {
  const heads = BigInt(at.site.query.heads);
  if (node.domain === "com.microsoft") {
    return {
      num_heads: heads,
      mask_filter_value: floatAttribute(node, "mask_filter_value", -10000),
      unidirectional: BigInt(intAttribute(node, "unidirectional", 0)),
    };
  }
  const precision = intAttribute(node, "softmax_precision", 0);
  return {
    is_causal: BigInt(intAttribute(node, "is_causal", 0)),
    softcap: floatAttribute(node, "softcap", 0),
    ...(precision === 0 ? {} : { softmax_precision: BigInt(precision) }),
    ...(headsFirst ? {} : { q_num_heads: heads, kv_num_heads: BigInt(groups) }),
  };
}

/**
 * Gives a grouped operator a key and a value head for every query head, from factors of that many: the same operator with
 * other inputs and another head count. Its cache then holds as many heads.
 *
 * @throws TuckerdError "unsupported" if query, key and value come packed and something stands between projection and operator.
 */
export function writeUngroupedOperator(at: SiteWriter, fused: FusedOperator, form: BlockForm): void {
  const { node, packed } = fused;
  const query = packed ? packedOperand(at, form, "query") : node.input[0]!;
  const [key, value] = [manyHeads(at, form, "key"), manyHeads(at, form, "value")];
  if (!(["key", "value"] as const).some((name) => keepsOutside(at, fused, name))) retypeCache(at, fused, form);
  const attribute = node.attribute.map((entry) =>
    entry.name === "kv_num_heads" ? withFields(entry, { i: BigInt(at.site.query.heads) }) : entry
  );
  at.writer.put(
    at.graph,
    withFields(node, { input: node.input.with(0, query).with(1, key).with(2, value), attribute }),
  );
}
