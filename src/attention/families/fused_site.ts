/**
 * What of a fused operator may run in the small space.
 *
 * MultiHeadAttention and the standard's Attention take value heads of another size than key heads, in their caches too, so they
 * run in the small space as they are; only a MultiHeadAttention with a cache wants one size for both and that cache for itself, and no cache of
 * theirs takes z: then they are written as plain operators. GroupQueryAttention takes neither other sizes nor any that isn't a multiple of 8: in the
 * small space it is always written so.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, type NodeProto, operatorOf } from "../../onnx/node.ts";
import { dataTypeName } from "../../onnx/tensor.ts";
import { groupQueryPath, groupQueryProblem, isGroupQuery, rotates } from "../group_query.ts";
import type { HeadView } from "../heads.ts";
import { isProjecting, multiHeadProblem } from "../multi_head.ts";
import { readOutput } from "../output.ts";
import type { FusedOperator, Site, SiteParts, Verdict } from "../site.ts";
import { judgeSpaces } from "../space.ts";
import { isStandardAttention, standardAttentionProblem } from "../standard_attention.ts";
import { elementTypeAt } from "../trace/element_type.ts";
import type { Tracer } from "../trace/tracer.ts";

/** The operands of an operator. */
export type FusedViews = Record<"query" | "key" | "value", HeadView>;

/** An operator whose operands could be followed. */
export interface FoundOperator extends Omit<FusedOperator, "scale"> {
  readonly graph: Graph;
  readonly views: FusedViews;
}

/** The site of an operator whose output is projected too, or the reason why there is none. */
export function fusedSite(tracer: Tracer, { graph, views, ...operator }: FoundOperator): Verdict {
  const { node } = operator;
  const { query, key, value } = views;
  if (query.headSize !== value.headSize || key.projection.rows !== query.projection.rows) {
    return { reason: "query, key and value have different sizes: they don't stack into one tensor" };
  }
  const context = node.output[0]!;
  const output = readOutput(tracer, graph, { context, heads: query.heads, headSize: value.headSize });
  if (typeof output === "string") return { reason: output };
  const broken = insideProblem(graph, operator) ?? typeProblem(graph, node, query.projection.elementType);
  const unwritable = broken ?? plainProblem(tracer, graph, operator);
  const fused = {
    ...operator,
    scale: floatAttribute(node, "scale", 0) || 1 / Math.sqrt(query.headSize),
    oneHeadSize: operator.oneHeadSize && (isProjecting(node) || unwritable !== undefined),
  };
  const parts: SiteParts = {
    graph,
    anchor: node,
    ...views,
    output,
    scores: context,
    probabilities: context,
    context,
    fused,
  };
  const capped = floatAttribute(node, "softcap", 0) > 0 ? "softcap" : undefined;
  const grouped = isGroupQuery(node);
  const path = grouped ? groupQueryPath(node) : { notAdditive: capped, rowSumBroken: undefined };
  const judged = judgeSpaces(tracer, parts, path);
  const [, presentKey, presentValue] = node.output;
  const both = node.opType === "Attention" && node.domain !== "" ? presentKey : presentValue;
  const present = { key: presentKey || judged.present.key, value: both || judged.present.value };
  const outside = outsideProblem(fused, views, present);
  const inside = broken ?? outside ?? (grouped ? unwritable : undefined);
  const rotated = grouped && rotates(node) ? `${operatorOf(node)} rotates keys inside, at full size` : undefined;
  const { queryKeyExpandedBecause: queryKey, valueOutputExpandedBecause: valueOutput } = judged;
  const together = fused.oneHeadSize ? togetherProblem(node, queryKey ?? valueOutput) : undefined;
  return {
    site: {
      ...parts,
      present,
      operatorStaysBecause: grouped ? inside : unwritable,
      queryKeyExpandedBecause: inside ?? rotated ?? queryKey ?? together,
      valueOutputExpandedBecause: inside ?? valueOutput ?? together,
    },
  };
}

/** Why an operator can't be written as plain ones; undefined if it can. */
function plainProblem(
  tracer: Tracer,
  graph: Graph,
  operator: Omit<FoundOperator, "views" | "graph">,
): string | undefined {
  const { node } = operator;
  if (isGroupQuery(node)) return groupQueryProblem(tracer, graph, node);
  return isStandardAttention(node)
    ? standardAttentionProblem(tracer, graph, node)
    : multiHeadProblem(tracer, graph, operator)?.reason;
}

/** Where one pair can't run reduced, and the operator takes key and value heads of one size. */
function togetherProblem(node: NodeProto, other: string | undefined): string | undefined {
  return other && `${operatorOf(node)} takes key and value heads of one size, and ${other}`;
}

/** GroupQueryAttention takes small heads from a cache of its own, not from one that the graph keeps outside. */
function outsideProblem(
  { node, past }: FusedOperator,
  { key, value }: FusedViews,
  present: Site["present"],
): string | undefined {
  if (!isGroupQuery(node) || past.key !== undefined) return undefined;
  const given = [present.key, present.value].some((name) => name !== undefined && !node.output.includes(name));
  const taken = key.past !== undefined || value.past !== undefined;
  return given || taken ? `its cache is kept outside ${operatorOf(node)}` : undefined;
}

/** Whether something casts between projections and operator: its operands in the small space come from the factors themselves. */
function typeProblem(graph: Graph, node: NodeProto, projected: number): string | undefined {
  const type = elementTypeAt(graph, node.input[0]!) ?? projected;
  return type === projected
    ? undefined
    : `${operatorOf(node)} takes ${dataTypeName(type)}, its projections are of ${dataTypeName(projected)}`;
}

/** What an operator does inside that needs heads of full size. */
function insideProblem(graph: Graph, { node, past }: Pick<FusedOperator, "node" | "past">): string | undefined {
  if (node.output[3]) return `${operatorOf(node)} gives its scores out`;
  const dimensions = past.key === past.value ? 5 : 4;
  for (const name of [past.key, past.value]) {
    if (name === undefined) continue;
    if (graph.input(name)?.type?.tensorType?.shape?.dim.length !== dimensions) {
      return `its past ${name} isn't an input of the model with ${dimensions} dimensions`;
    }
    if (graph.uses(name).some((use) => use.node !== node && use.node.opType !== "Shape")) {
      return `its past ${name} is read elsewhere too`;
    }
  }
  for (const name of node.output.slice(1, 3)) {
    if (name !== "" && (!graph.isOutput(name) || graph.uses(name).some((use) => use.node.opType !== "Shape"))) {
      return `its present ${name} isn't just an output of the model`;
    }
  }
  return undefined;
}
