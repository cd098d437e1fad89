/**
 * A model on its way to disk: the graph, and the files of external data that go with it.
 *
 * @module
 */
import { basename, dirname, resolve } from "@std/path/mod.js";
import { TuckerdError } from "../errors.ts";
import { byteLength, encodeModelPieces, MAX_MODEL_BYTES, withFields } from "./codec.ts";
import { release } from "../release.ts";
import {
  externalTensor,
  movedTensor,
  nextPage,
  packData,
  type PlacedTensor,
  writePacked,
  writeTensors,
} from "./data_files.ts";
import { externalLocation } from "./external.ts";
import { type ModelProto, type TensorProto, TensorProto_DataLocation } from "./gen/onnx_pb.ts";
import { mapGraph } from "./map_graph.ts";
import { externalTensors, type OnnxModel } from "./model.ts";
import { byteSizeOf, floatTensor, tensorShape } from "./tensor.ts";

/** Smaller tensors stay in the graph, as ONNX's own tools have it: shapes and the like are read from there. */
const LEAST_EXTERNAL_BYTES = 1024;

/**
 * Writes a model under a temporary name and renames it, so that `path` never holds half a model.
 *
 * In the folder that the model came from, the new file refers to the external data that is there, untouched. In another one, files of
 * the same names hold what the model still uses of them (`NAME_2` where another graph's data has the name). New tensors of 1 KiB and more join the external data, in `NAME.onnx_data`,
 * where the model has some, or where the graph would otherwise be longer than a protobuf message can be (2 GiB), or where
 * tensors' numbers are made only now (`later`).
 *
 * @throws TuckerdError "failed" if the disk refuses, `NAME.onnx_data` is there already, or data to refer to is a link
 */
export async function saveModel(model: OnnxModel, path: string): Promise<void> {
  const folder = dirname(resolve(path));
  const external = [...externalTensors(model)];
  if (folder === model.folder) await refuseLinks(model, external);
  const packed = folder === model.folder ? [] : await Promise.all(
    packData(external).map(async (file) => ({ ...file, target: await freeName(folder, file.location) })),
  );
  const written: string[] = [];
  try {
    await Deno.mkdir(folder, { recursive: true });
    for (const file of packed) {
      written.push(`${folder}/${file.target}`);
      await writePacked(file, model.folder, folder);
    }
    let proto = packed.length === 0
      ? model.proto
      : changed(model.proto, (tensor) => isExternal(tensor) ? movedTensor(tensor, packed) : tensor);
    let pieces = encodeModelPieces(proto);
    if (external.length > 0 || model.later !== undefined || byteLength(pieces) > MAX_MODEL_BYTES) {
      const location = `${basename(path)}_data`;
      const before = packed.find((file) => file.target === location);
      const own = takenOut({ ...model, proto }, { location, offset: before?.size ?? 0 });
      if (own.tensors.length > 0) {
        const target = `${folder}/${location}`;
        if (before === undefined) await refuseExisting(target);
        if (before === undefined) written.push(target);
        await writeTensors(target, own.tensors);
        proto = own.proto;
        pieces = encodeModelPieces(proto);
      }
    }
    await writeGraph(path, pieces);
  } catch (error) {
    for (const file of written) await Deno.remove(file).catch(() => {/* it may never have been made */});
    if (error instanceof TuckerdError) throw error;
    throw new TuckerdError("failed", `${path} can't be written: ${String(error)}`, { cause: error, fields: { path } });
  }
}

/** A model whose larger initializers, and those without numbers yet, lie in a file from an offset on; and what goes there. */
function takenOut(
  { proto, later }: Pick<OnnxModel, "proto" | "later">,
  file: { readonly location: string; readonly offset: number },
): { readonly proto: ModelProto; readonly tensors: readonly PlacedTensor[] } {
  const initializers = new Set(proto.graph?.initializer);
  const tensors: PlacedTensor[] = [];
  let end = file.offset;
  const result = changed(proto, (tensor) => {
    if (!initializers.has(tensor)) return tensor;
    const make = later?.get(tensor.name);
    if (make === undefined && tensor.rawData.byteLength < LEAST_EXTERNAL_BYTES) return tensor;
    const offset = nextPage(end);
    end = offset + (make === undefined ? tensor.rawData.byteLength : byteSizeOf(tensor));
    tensors.push({ data: make === undefined ? tensor.rawData : () => madeBytes(tensor, make), offset });
    return externalTensor(tensor, { location: file.location, offset });
  });
  return { proto: result, tensors };
}

/** A tensor's numbers in its own type. */
async function madeBytes(tensor: TensorProto, make: () => Promise<Float32Array>): Promise<Uint8Array> {
  const numbers = await make();
  const { rawData } = floatTensor(tensor.name, tensorShape(tensor), numbers, tensor.dataType);
  if (rawData.buffer !== numbers.buffer) release(numbers);
  return rawData;
}

async function writeGraph(path: string, pieces: readonly Uint8Array[]): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}.part`;
  try {
    {
      using file = await Deno.open(temporary, { write: true, createNew: true });
      for (const piece of pieces) {
        for (let at = 0; at < piece.byteLength;) at += await file.write(piece.subarray(at));
      }
      await file.sync();
    }
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {/* it may never have been made */});
    throw error;
  }
}

async function refuseExisting(path: string): Promise<void> {
  if (await exists(path)) {
    throw new TuckerdError("failed", `${path} is there already, where weights would go; choose another name`);
  }
}

/** Data that lies elsewhere, as in the Hugging Face cache, can't be referred to: ONNX Runtime refuses links that leave the folder. */
async function refuseLinks({ folder }: OnnxModel, tensors: readonly TensorProto[]): Promise<void> {
  for (const location of new Set(tensors.map((tensor) => externalLocation(tensor, "").location))) {
    if (!(await Deno.lstat(`${folder}/${location}`)).isSymlink) continue;
    throw new TuckerdError(
      "failed",
      `${folder}/${location} is a link, which ONNX Runtime doesn't follow out of the folder; write to another folder, which gets the data`,
    );
  }
}

/** A location, or the first of `location_2`, `location_3`… that nothing has. */
async function freeName(folder: string, location: string): Promise<string> {
  let name = location;
  for (let n = 2; await exists(`${folder}/${name}`); n++) name = `${location}_${n}`;
  return name;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

function changed(proto: ModelProto, tensor: (tensor: TensorProto) => TensorProto): ModelProto {
  return proto.graph === undefined ? proto : withFields(proto, { graph: mapGraph(proto.graph, { tensor }) });
}

function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === TensorProto_DataLocation.EXTERNAL;
}
