/**
 * How large a model's weights are, and in which files they lie.
 *
 * @module
 */
import { join, resolve } from "node:path";
import { externalLocation } from "../onnx/external.ts";
import { encodeModel, type OnnxModel, saveModel, tensorsOf } from "../onnx/model.ts";
import { type TensorProto, TensorProto_DataLocation } from "../onnx/gen/onnx_pb.ts";
import { DataType, sizeOf, tensorShape } from "../onnx/tensor.ts";
import type { GraphSource } from "./artifact.ts";

const bitsOf: Readonly<Record<number, number>> = {
  [DataType.FLOAT]: 32,
  [DataType.UINT8]: 8,
  [DataType.INT8]: 8,
  [DataType.UINT16]: 16,
  [DataType.INT16]: 16,
  [DataType.INT32]: 32,
  [DataType.INT64]: 64,
  [DataType.BOOL]: 8,
  [DataType.FLOAT16]: 16,
  [DataType.DOUBLE]: 64,
  [DataType.UINT32]: 32,
  [DataType.UINT64]: 64,
  [DataType.BFLOAT16]: 16,
  [DataType.UINT4]: 4,
  [DataType.INT4]: 4,
};

/** Bytes of all constant tensors of a model, wherever they are stored. */
export function weightBytes(model: OnnxModel): number {
  let bytes = 0;
  for (const tensor of tensors(model)) {
    bytes += Math.ceil(sizeOf(tensorShape(tensor)) * (bitsOf[tensor.dataType] ?? 8) / 8);
  }
  return bytes;
}

/** The files of external data that a model refers to, sorted. */
export function externalFiles(model: OnnxModel): readonly string[] {
  const paths = new Set<string>();
  for (const tensor of tensors(model)) {
    if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) {
      paths.add(resolve(externalLocation(tensor, model.folder).path));
    }
  }
  return [...paths].sort();
}

/**
 * A model as the runtime takes it: its bytes, or, where it keeps weights in external data, a file in a folder of its own with links to
 * that data beside it, since bytes in memory have no folder to find it in.
 *
 * @throws TuckerdError "failed" if the disk refuses
 */
export async function graphSource(model: OnnxModel, makeFolder: () => Promise<string>): Promise<GraphSource> {
  if (externalFiles(model).length === 0) return { bytes: encodeModel(model) };
  const path = join(await makeFolder(), "model.onnx");
  await saveModel(model, path);
  return { path };
}

function tensors(model: OnnxModel): Iterable<TensorProto> {
  return model.proto.graph === undefined ? [] : tensorsOf(model.proto.graph);
}
