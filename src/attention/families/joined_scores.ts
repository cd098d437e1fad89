/**
 * Scores that are put together from several products: LUKE's words and entities, each pair of which has a query of its own.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { nodeName, type NodeProto } from "../../onnx/node.ts";
import { isElementwise } from "../trace/arithmetic.ts";
import { isMovement } from "../trace/movement.ts";
import type { Tracer } from "../trace/tracer.ts";
import { readOperand } from "./operand.ts";

/** Longest way, in nodes, from a Concat to a product. */
const REACH = 12;

/** Why scores that a Concat makes are no attention's: they come from several products. Undefined where they come from one. */
export function joinedScores(tracer: Tracer, graph: Graph, concat: NodeProto): string | undefined {
  const products = productsOf(tracer, graph, { name: concat.output[0]!, reach: REACH });
  if (products.length < 2) return undefined;
  const queries = new Set(products.map((product) => queryOf(tracer, graph, product)));
  const what = queries.size === 1 ? "one query" : `${queries.size} queries`;
  return `its scores are joined by ${nodeName(concat)} from ${products.length} products of ${what} ` +
    `(${[...queries].join(", ")}), an attention's come from one`;
}

/** The products that a value is joined from, those of its summands not counted twice. */
function productsOf(
  tracer: Tracer,
  graph: Graph,
  { name, reach }: { readonly name: string; readonly reach: number },
): NodeProto[] {
  const node = graph.producer(name);
  if (node === undefined || reach === 0 || tracer.projection(graph, node) !== undefined) return [];
  if (node.opType === "MatMul" || node.opType === "FusedMatMul") return [node];
  const behind = (input: string): NodeProto[] => productsOf(tracer, graph, { name: input, reach: reach - 1 });
  if (node.opType === "Concat") return node.input.flatMap(behind);
  if (isMovement(node)) return behind(node.input[0]!);
  if (!isElementwise(node)) return [];
  return node.input.map(behind).find((products) => products.length > 0) ?? [];
}

/** The projection that makes a product's query; the product itself where that isn't known. */
function queryOf(tracer: Tracer, graph: Graph, product: NodeProto): string {
  const heads = tracer.value(graph, product.output[0]!).shape?.slice(0, -2);
  const query = readOperand(tracer, graph, { name: product.input[0]!, transposed: false, heads });
  return nodeName(typeof query === "string" || "cache" in query ? product : query.projection.node);
}
