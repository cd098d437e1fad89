/**
 * ONNX Runtime for all who use it: the only import of onnxruntime-node, so that its telemetry is off before it starts.
 *
 * @module
 */
import "./no_telemetry.ts";

export { InferenceSession, Tensor } from "onnxruntime-node";

/**
 * Settings (`extra`) of sessions that compute what a file says. ONNX Runtime otherwise rounds to 8 bits what 2- to 8-bit matrices between
 * DequantizeLinear and MatMul are multiplied by: without a word in the file, and not where factors have taken a matrix's place.
 */
export const AS_WRITTEN = { session: { qdq_matmulnbits_accuracy_level: "1" } } as const;
