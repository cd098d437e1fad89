/**
 * Models whose weights are put beside their graph.
 *
 * @module
 */
import { concat } from "@std/bytes/mod.js";
import { withFields } from "../../src/onnx/codec.ts";
import { externalTensor } from "../../src/onnx/data_files.ts";
import { encodeModel, type OnnxModel } from "../../src/onnx/model.ts";

/** What was written. */
export interface WrittenModel {
  readonly path: string;
  /** Number of tensors in the data file. */
  readonly moved: number;
}

/** Writes `model.onnx` into a folder, with the tensors of at least 64 bytes in a data file beside it. */
export async function writeExternal(
  { proto, ...model }: OnnxModel,
  { folder, location }: { readonly folder: string; readonly location: string },
): Promise<WrittenModel> {
  const pieces: Uint8Array[] = [];
  let offset = 0;
  const initializer = proto.graph!.initializer.map((tensor) => {
    if (tensor.rawData.byteLength < 64) return tensor;
    const moved = externalTensor(tensor, { location, offset });
    pieces.push(tensor.rawData);
    offset += tensor.rawData.byteLength;
    return moved;
  });
  await Deno.writeFile(`${folder}/${location}`, concat(pieces));
  const path = `${folder}/model.onnx`;
  const graph = withFields(proto.graph!, { initializer });
  await Deno.writeFile(path, encodeModel({ ...model, proto: withFields(proto, { graph }) }));
  return { path, moved: pieces.length };
}
