/**
 * Element types of real numbers on their way through a graph: models of mixed precision cast between float16 and float32.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, type NodeProto, tensorAttribute } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";

/** The input that a node's result has the type of, where that isn't the first; of a product the matrix, which ends the way. */
const TYPED_BY: Readonly<Record<string, number>> = {
  Where: 1,
  CastLike: 1,
  DequantizeLinear: 1,
  MatMul: 1,
  FusedMatMul: 1,
  Gemm: 1,
  MatMulNBits: 2,
  MatMulBnb4: 2,
  Attention: 1,
  EmbedLayerNormalization: 2,
};

/** Element type of a value of real numbers; undefined where it isn't known. */
export function elementTypeAt(graph: Graph, name: string): number | undefined {
  const scope = graph.scopeOf(name);
  const stored = scope?.initializer(name);
  if (stored !== undefined) return stored.dataType;
  const given = scope?.input(name);
  if (given !== undefined) return given.type?.tensorType?.elemType || undefined;
  const node = scope?.producer(name);
  return scope === undefined || node === undefined ? undefined : typeMadeBy(scope, node);
}

function typeMadeBy(graph: Graph, node: NodeProto): number | undefined {
  if (node.opType === "Cast") return intAttribute(node, "to", DataType.FLOAT);
  if (node.input.length === 0) return tensorAttribute(node, "value")?.dataType ?? DataType.FLOAT;
  const name = node.input[TYPED_BY[node.opType] ?? 0];
  return name === undefined || name === "" ? undefined : elementTypeAt(graph, name);
}
