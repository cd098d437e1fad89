/**
 * Whether ONNX Runtime's WebGPU provider really runs here. ONNX Runtime gives nodes that a provider declines to the CPU
 * without a word, so "the session was built" proves nothing: this builds a tiny session that may not fall back.
 *
 * @module
 */
import { InferenceSession } from "../onnx_runtime.ts";
import { TuckerdError } from "../errors.ts";
import { sentence } from "./ort_errors.ts";

/** ONNX model `y = x @ factor`, x [batch, 2], factor [2, rank], opset 17: one MatMul that every GPU provider takes. */
const matMul = Uint8Array.from(
  atob(
    "CAg6dAoWCgF4CgZmYWN0b3ISAXkiBk1hdE11bBIEdGlueVoYCgF4EhMKEQgBEg0KBxIFYmF0Y2gKAggCWhwKBmZhY3RvchISChAIARIMCgIIAgoG" +
      "EgRyYW5rYhwKAXkSFwoVCAESEQoHEgViYXRjaAoGEgRyYW5rQgIQEQ==",
  ),
  (character) => character.charCodeAt(0),
);

/** Resolves if the WebGPU provider runs a matrix product by itself; otherwise throws `failed` with what to do. */
export async function checkWebgpu(): Promise<void> {
  try {
    const session = await InferenceSession.create(matMul, {
      executionProviders: ["webgpu"],
      extra: { session: { disable_cpu_ep_fallback: "1" } },
      logSeverityLevel: 4, // what goes wrong is thrown, and told once
    });
    await session.release();
  } catch (error) {
    throw new TuckerdError(
      "failed",
      `Inference on WebGPU was asked for, but ONNX Runtime's WebGPU provider does not run here: ${sentence(error)}; ` +
        `install a Vulkan (Linux), Metal or Direct3D 12 driver for a GPU, or use --inference cpu`,
      { cause: error, fields: { provider: "webgpu" } },
    );
  }
}
