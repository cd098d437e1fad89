/**
 * The edge between bytes and messages: the only file that uses the protobuf runtime's reader and writer. The schema is
 * `onnx.proto`; fields it doesn't name survive a round trip.
 *
 * @module
 */
import { type DescMessage, fromBinary, type Message, type MessageShape, toBinary } from "@bufbuild/protobuf";
import {
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type TensorProto,
  TensorProtoSchema,
} from "./gen/onnx_pb.ts";

/** A protobuf message longer than this can't exist; bigger models keep their weights in external data. */
export const MAX_MODEL_BYTES = 2 ** 31 - 1;

/** Raw data from this size on is handed over as it is, instead of being copied through the writer. */
const STREAMED_BYTES = 1 << 14;

/** Reads a model. Tensor data stays in views of `bytes`, nothing is copied. Throws what the protobuf reader throws. */
export function decodeModel(bytes: Uint8Array): ModelProto {
  return fromBinary(ModelProtoSchema, bytes);
}

/**
 * The encoded model as a list of pieces to write one after the other. Large tensors are passed through without a copy, so
 * writing a model takes no more memory than holding it.
 */
export function encodeModelPieces(model: ModelProto): Uint8Array[] {
  if (model.graph === undefined) return [toBinary(ModelProtoSchema, model)];
  const { graph } = model;
  const body = [encodeWithout(GraphProtoSchema, graph, "initializer")];
  for (const tensor of graph.initializer) {
    const pieces = encodeTensorPieces(tensor);
    body.push(lengthDelimited(fieldNumber(GraphProtoSchema, "initializer"), byteLength(pieces)), ...pieces);
  }
  return [
    encodeWithout(ModelProtoSchema, model, "graph"),
    lengthDelimited(fieldNumber(ModelProtoSchema, "graph"), byteLength(body)),
    ...body,
  ];
}

/** Total length of a list of pieces, in bytes. */
export function byteLength(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((total, piece) => total + piece.byteLength, 0);
}

/**
 * A copy of a message that shares its fields' contents, with some of them replaced: how edited models avoid copying
 * weights. A field replaced by `undefined` becomes unset.
 */
export function withFields<T extends Message>(message: T, changes: Partial<T>): T {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(message)), message) as T;
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) delete copy[key as keyof T];
    else copy[key as keyof T] = value as T[keyof T];
  }
  return copy;
}

function encodeTensorPieces(tensor: TensorProto): Uint8Array[] {
  const raw = tensor.rawData;
  if (raw.byteLength < STREAMED_BYTES) return [toBinary(TensorProtoSchema, tensor)];
  return [
    encodeWithout(TensorProtoSchema, tensor, "rawData"),
    lengthDelimited(fieldNumber(TensorProtoSchema, "rawData"), raw.byteLength),
    raw,
  ];
}

function encodeWithout<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
  field: keyof MessageShape<Desc>,
): Uint8Array {
  const empty = Array.isArray(message[field]) ? [] : undefined;
  return toBinary(schema, withFields(message, { [field]: empty } as Partial<MessageShape<Desc>>));
}

function fieldNumber<Desc extends DescMessage>(schema: Desc, localName: string): number {
  const field = schema.fields.find((candidate) => candidate.localName === localName);
  if (field === undefined) throw new TypeError(`${schema.typeName} has no field ${localName}`);
  return field.number;
}

/** Tag and length of a length-delimited field (protobuf encoding: two varints). */
function lengthDelimited(field: number, length: number): Uint8Array {
  const bytes: number[] = [];
  for (let value of [field * 8 + 2, length]) {
    while (value >= 128) {
      bytes.push(value % 128 + 128);
      value = Math.floor(value / 128);
    }
    bytes.push(value);
  }
  return Uint8Array.from(bytes);
}
