/**
 * How large a model's weights are, and in which files they lie.
 *
 * @module
 */
import { join, resolve } from "node:path";
import { externalLocation } from "../onnx/external.ts";
import { encodeModel, type OnnxModel, tensorsOf } from "../onnx/model.ts";
import { type TensorProto, TensorProto_DataLocation } from "../onnx/gen/onnx_pb.ts";
import { saveModel } from "../onnx/save.ts";
import { byteSizeOf } from "../onnx/tensor.ts";
import type { GraphSource } from "./artifact.ts";

/** Bytes of all constant tensors of a model, wherever they are stored. */
export function weightBytes(model: OnnxModel): number {
  let bytes = 0;
  for (const tensor of tensors(model)) bytes += byteSizeOf(tensor);
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
 * A model as the runtime takes it: its bytes, or, where it keeps weights in external data, a file in a folder of its own with
 * what it uses of that data beside it, since bytes in memory have no folder to find it in.
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
