/**
 * Operators that change the numbers of their first input, each by its neighbours, and keep every one in its place.
 *
 * @module
 */
import type { NodeProto } from "../../onnx/node.ts";

const NORMS = new Set([
  "LayerNormalization",
  "SimplifiedLayerNormalization",
  "RMSNormalization",
  "RotaryEmbedding",
]);

/** Whether a node is a norm or a rotation of its first input. */
export function isNorm(node: NodeProto): boolean {
  return NORMS.has(node.opType);
}
