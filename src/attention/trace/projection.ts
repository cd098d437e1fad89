/**
 * Linear projections: operators that multiply a stream of row vectors by a constant matrix.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto } from "../../onnx/node.ts";
import type { Value } from "./value.ts";

/** `output = alpha · (stream @ W) + beta · bias`, as one node of the graph. */
export interface Projection {
  readonly graph: Graph;
  readonly node: NodeProto;
  /** Name of the row vectors that the node reads, [..., d]. */
  readonly stream: string;
  /** Name of the same row vectors as [batch, positions, d], where the graph has them so; otherwise `stream`. */
  readonly input: string;
  /** Name of the constant matrix. */
  readonly weight: string;
  /** Whether the constant is stored as [N, d] instead of [d, N]. */
  readonly transposed: boolean;
  readonly alpha: number;
  /** Name of a bias that the node adds itself. */
  readonly bias: string | undefined;
  readonly beta: number;
  /** d. */
  readonly rows: number;
  /** N. */
  readonly columns: number;
}

/** The projection that a node computes, or undefined if it isn't one. */
export function projectionOf(
  graph: Graph,
  node: NodeProto,
  valueOf: (name: string) => Value,
): Projection | undefined {
  if (node.domain !== "" && node.domain !== "ai.onnx") return undefined;
  if (node.opType !== "MatMul" && node.opType !== "Gemm") return undefined;
  const [stream, weight, bias] = node.input;
  if (stream === undefined || weight === undefined) return undefined;
  const matrix = valueOf(weight);
  if (!matrix.constant || matrix.shape?.length !== 2 || valueOf(stream).constant) return undefined;
  const gemm = node.opType === "Gemm";
  if (gemm && intAttribute(node, "transA", 0) === 1) return undefined;
  const transposed = gemm && intAttribute(node, "transB", 0) === 1;
  const [first, second] = matrix.shape as [number, number];
  return {
    graph,
    node,
    stream,
    input: unflattened(graph, stream, valueOf),
    weight,
    transposed,
    alpha: gemm ? floatAttribute(node, "alpha", 1) : 1,
    bias: gemm && bias !== undefined && bias !== "" ? bias : undefined,
    beta: gemm ? floatAttribute(node, "beta", 1) : 1,
    rows: transposed ? second : first,
    columns: transposed ? first : second,
  };
}

/** Before a Gemm, exporters flatten [batch, positions, d] to rows: the value before that. */
function unflattened(graph: Graph, stream: string, valueOf: (name: string) => Value): string {
  const node = graph.producer(stream);
  const [before] = node?.input ?? [];
  if (node?.opType !== "Reshape" || before === undefined) return stream;
  const shape = valueOf(before).shape;
  return shape?.length === 3 && shape[2] === valueOf(stream).shape?.at(-1) ? before : stream;
}
