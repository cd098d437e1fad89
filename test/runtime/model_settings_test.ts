/** The settings of sessions reach ONNX Runtime: a misspelt one would be ignored without a word. */
import { create } from "@bufbuild/protobuf";
import { assertEquals } from "@std/assert/mod.js";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { encodeModel, loadModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { InferenceSession, modelSettings } from "../../src/onnx_runtime.ts";
import { temporaryFolder } from "../support/folder.ts";

const SIZE = 8;

/** A residual sum and its layer norm. */
function residual(): Uint8Array<ArrayBuffer> {
  const [x, y, out] = ["x", "y", "out"].map((name) => tensorInfo(name, DataType.FLOAT, [1, 4, SIZE]));
  const graph = create(GraphProtoSchema, {
    name: "residual",
    node: [
      makeNode("Add", ["x", "y"], ["sum"]),
      makeNode("LayerNormalization", ["sum", "gain", "bias"], ["out"]),
    ],
    initializer: [
      floatTensor("gain", [SIZE], new Float32Array(SIZE).fill(2), DataType.FLOAT),
      floatTensor("bias", [SIZE], new Float32Array(SIZE).fill(1), DataType.FLOAT),
    ],
    input: [x!, y!],
    output: [out!],
  });
  const proto = create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport: [{ domain: "", version: 17n }] });
  return encodeModel({ proto, path: "", folder: "" });
}

/** The operators that ONNX Runtime runs with these settings. */
async function operatorsRun(extra: Readonly<Record<string, unknown>>): Promise<string[]> {
  await using folder = await temporaryFolder();
  const optimizedModelFilePath = `${folder.path}/optimized.onnx`;
  const session = await InferenceSession.create(residual(), {
    graphOptimizationLevel: "all",
    optimizedModelFilePath,
    logSeverityLevel: 3,
    extra,
  });
  await session.release();
  const { proto } = await loadModel(optimizedModelFilePath);
  return proto.graph!.node.map(({ opType }) => opType);
}

Deno.test("on the CPU a residual sum and its layer norm run apart; elsewhere as one operator", async () => {
  assertEquals(await operatorsRun(modelSettings("cpu")), ["Add", "LayerNormalization"]);
  assertEquals(await operatorsRun(modelSettings("webgpu")), ["SkipLayerNormalization"]);
});
