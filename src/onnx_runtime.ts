/**
 * ONNX Runtime for all who use it: the only import of onnxruntime-node, so that its telemetry is off before it starts.
 *
 * @module
 */
import "./no_telemetry.ts";

export { InferenceSession, Tensor } from "onnxruntime-node";
