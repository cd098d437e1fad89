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
const AS_WRITTEN = { session: { qdq_matmulnbits_accuracy_level: "1" } } as const;

/**
 * On the CPU, ONNX Runtime's SkipLayerNormalization adds up each row number by number. The Add and LayerNormalization that it is fused from
 * take a third of its time at 768 numbers a row, and at 4096 between a seventh and two fifths.
 */
const WITHOUT_SLOW_FUSION = { optimization: { disable_specified_optimizers: "SkipLayerNormFusion" } } as const;

/** Settings (`extra`) of every session that runs a user's model. */
export function modelSettings(provider: "cpu" | "webgpu"): Readonly<Record<string, unknown>> {
  return provider === "cpu" ? { ...AS_WRITTEN, ...WITHOUT_SLOW_FUSION } : AS_WRITTEN;
}
