/**
 * A model file in memory, and its way back to bytes.
 *
 * @module
 */
import { basename, dirname, join, resolve } from "@std/path/mod.js";
import { TuckerdError } from "../errors.ts";
import { byteLength, decodeModel, encodeModelPieces, MAX_MODEL_BYTES } from "./codec.ts";
import { externalLocation } from "./external.ts";
import { inlineFunctions } from "./inline.ts";
import { byteSizeOf, tensorShape } from "./tensor.ts";
import { type GraphProto, type ModelProto, type TensorProto, TensorProto_DataLocation } from "./gen/onnx_pb.ts";

/** A decoded model and where it came from. Passes never change one: they return another that shares its tensors. */
export interface OnnxModel {
  readonly proto: ModelProto;
  /** The file it was read from. */
  readonly path: string;
  /** The folder that external data is relative to. */
  readonly folder: string;
  /**
   * Initializers of the main graph that have no numbers yet: what makes those when the model is written, so that memory holds a few of
   * them at a time. The arrays are the caller's.
   */
  readonly later?: ReadonlyMap<string, () => Promise<Float32Array>>;
  /** The file of the first call, where this one is for the calls after it: it fills the cache that this one reads. */
  readonly firstCall?: OnnxModel;
}

/** A decoder for all calls but the first, as exporters name it; the first call's file lies beside it. */
const LATER_CALLS = /^decoder_with_past_model(.*\.onnx)$/;

/**
 * Reads an ONNX file, with its functions in the place of their calls, and for a `decoder_with_past_model` the `decoder_model` beside it. Weights in external data stay where
 * they are; only their presence is checked.
 *
 * @throws TuckerdError "not-found" if there is no such file, "bad-model" if it is truncated, not protobuf, has no graph, or
 * refers to external data that isn't there.
 */
export async function loadModel(path: string): Promise<OnnxModel> {
  const bytes = await readModelFile(path);
  const proto = inlineFunctions(decode(bytes, path));
  if (proto.graph === undefined || proto.graph.node.length === 0) {
    throw new TuckerdError(
      "bad-model",
      `${path} isn't an ONNX model: ${bytes.length} bytes, but no graph with nodes in them`,
      { fields: { path, bytes: bytes.length } },
    );
  }
  const model = { proto, path, folder: dirname(resolve(path)) };
  await checkExternalData(model);
  const variant = LATER_CALLS.exec(basename(path))?.[1];
  const first = variant === undefined ? undefined : join(model.folder, `decoder_model${variant}`);
  return first !== undefined && await isFile(first) ? { ...model, firstCall: await loadModel(first) } : model;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * The encoded model.
 *
 * @throws TuckerdError "failed" if it would be longer than a protobuf message can be (2 GiB); TypeError if it has tensors whose
 * numbers are made when it is written.
 */
export function encodeModel(model: OnnxModel): Uint8Array<ArrayBuffer> {
  if (model.later !== undefined) {
    throw new TypeError(`the numbers of ${model.later.size} tensors are made when the model is written: use saveModel`);
  }
  const pieces = encodeModelPieces(model.proto);
  checkLength(model, byteLength(pieces));
  const bytes = new Uint8Array(byteLength(pieces));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

/** Every tensor of a graph and its subgraphs: initializers, and tensors in attributes. */
export function* tensorsOf(graph: GraphProto): Generator<TensorProto> {
  yield* graph.initializer;
  for (const node of graph.node) {
    for (const attribute of node.attribute) {
      if (attribute.t !== undefined) yield attribute.t;
      yield* attribute.tensors;
      if (attribute.g !== undefined) yield* tensorsOf(attribute.g);
      for (const subgraph of attribute.graphs) yield* tensorsOf(subgraph);
    }
  }
}

async function readModelFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new TuckerdError(missing ? "not-found" : "bad-model", `${path} can't be read: ${String(error)}`, {
      cause: error,
      fields: { path },
    });
  }
}

function decode(bytes: Uint8Array, path: string): ModelProto {
  try {
    return decodeModel(bytes);
  } catch (error) {
    throw new TuckerdError(
      "bad-model",
      `${path} isn't a whole ONNX model (${bytes.length} bytes): the protobuf reader says "${
        error instanceof Error ? error.message : String(error)
      }". Perhaps the download was cut short?`,
      { cause: error, fields: { path, bytes: bytes.length } },
    );
  }
}

async function checkExternalData(model: OnnxModel): Promise<void> {
  const needed = new Map<string, number>();
  for (const tensor of externalTensors(model)) {
    const { location, offset, length } = externalLocation(tensor, model.folder);
    const bytes = byteSizeOf(tensor);
    if (length !== undefined && length !== bytes) {
      throw new TuckerdError(
        "bad-model",
        `${model.path}: tensor ${tensor.name} of shape [${
          tensorShape(tensor)
        }] takes ${bytes} bytes, but its external data ` +
          `(${location}) is said to have ${length}`,
        { fields: { path: model.path, location } },
      );
    }
    needed.set(location, Math.max(needed.get(location) ?? 0, offset + bytes));
  }
  for (const [location, bytes] of needed) {
    const size = await Deno.stat(`${model.folder}/${location}`).then((info) => info.size, () => undefined);
    if (size === undefined || size < bytes) {
      throw new TuckerdError(
        "bad-model",
        `${model.path} keeps weights in ${location} (at least ${bytes} bytes), but that file ` +
          `${size === undefined ? "isn't there" : `has ${size} bytes`}: put it beside the model`,
        { fields: { path: model.path, location } },
      );
    }
  }
}

/** The tensors whose bytes lie in files beside the model. */
export function* externalTensors(model: OnnxModel): Generator<TensorProto> {
  if (model.proto.graph === undefined) return;
  for (const tensor of tensorsOf(model.proto.graph)) {
    if (tensor.dataLocation === TensorProto_DataLocation.EXTERNAL) yield tensor;
  }
}

function checkLength(model: OnnxModel, bytes: number): void {
  if (bytes <= MAX_MODEL_BYTES) return;
  throw new TuckerdError(
    "failed",
    `${basename(model.path)} would take ${bytes} bytes, more than a protobuf message can hold (${MAX_MODEL_BYTES}): ` +
      `its weights must stay in external data`,
    { fields: { bytes } },
  );
}
