/**
 * The standard's Attention over keys and values that come from a cache alone, as those of an encoder do in every call of a decoder but the
 * first: see `cache_reader.ts`.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, type NodeProto } from "../../onnx/node.ts";
import { readCachedHeads, readHeads } from "../heads.ts";
import { readOutput } from "../output.ts";
import type { Verdict } from "../site.ts";
import { standardAttentionProblem } from "../standard_attention.ts";
import { elementTypeAt } from "../trace/element_type.ts";
import type { Tracer } from "../trace/tracer.ts";

/** The operator as a reader of caches; undefined where it isn't one, or does more than attend to them. */
export function readerAtOperator(tracer: Tracer, graph: Graph, node: NodeProto): Verdict | undefined {
  const [query, key, value, ...others] = node.input.map((name) => name === "" ? undefined : tracer.trace(graph, name));
  const plain = node.domain !== "com.microsoft" && node.output.slice(1).every((name) => name === "");
  if (!plain || [query, key, value].some((trace) => trace?.shape.length !== 4) || others.length > 1) return undefined;
  const cached = [key, value].map((trace) => readCachedHeads(tracer, trace!, false));
  const [keys, values] = cached;
  const heads = query!.shape[1]!;
  if (keys === undefined || values === undefined || keys.heads !== heads || values.heads !== heads) return undefined;
  const asked = readHeads(tracer, query!, false);
  if (typeof asked === "string") return { reason: `the query can't be followed: ${asked}` };
  if ((elementTypeAt(graph, node.input[0]!) ?? asked.projection.elementType) !== asked.projection.elementType) {
    return undefined;
  }
  const context = node.output[0]!;
  const output = readOutput(tracer, graph, { context, heads, headSize: values.headSize });
  if (typeof output === "string") return { reason: output };
  const fused = {
    node,
    biases: [],
    mask: node.input[3] || undefined,
    attentionBias: undefined,
    scale: floatAttribute(node, "scale", 0) || 1 / Math.sqrt(asked.headSize),
    headsFirst: true,
    packed: false,
    oneHeadSize: false,
    past: { key: undefined, value: undefined },
  };
  const path = { notAdditive: floatAttribute(node, "softcap", 0) > 0 ? "softcap" : undefined, rowSumBroken: undefined };
  const places = { scores: context, probabilities: context, context };
  const operatorStaysBecause = standardAttentionProblem(tracer, graph, node);
  const parts = { graph, anchor: node, query: asked, key: keys, value: values, output, ...places, fused };
  return { reader: { ...parts, path, operatorStaysBecause } };
}
