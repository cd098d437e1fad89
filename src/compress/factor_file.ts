/**
 * Factors of one layer as a file in the safetensors layout: a little-endian 64-bit header length, a JSON header with
 * shapes and offsets, then raw float32. Written to a temporary name and renamed, so a reader never sees half a file.
 *
 * @module
 */
import { dirname } from "node:path";
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import type { FactorTensor } from "./artifact.ts";

const Entry = z.object({
  dtype: z.literal("F32"),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});
const Header = z.object({ __metadata__: z.record(z.string(), z.string()) }).catchall(Entry);

/** Tensors and the facts about them (strings, as the format has it). */
export interface FactorFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: Readonly<Record<string, FactorTensor>>;
}

/** Encodes to the safetensors layout. */
export function encodeFactorFile(file: FactorFile): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = { __metadata__: file.metadata };
  let offset = 0;
  for (const [name, tensor] of Object.entries(file.tensors)) {
    const end = offset + tensor.data.byteLength;
    header[name] = { dtype: "F32", shape: tensor.shape, data_offsets: [offset, end] };
    offset = end;
  }
  // The data starts at a multiple of 8 bytes: spaces behind the JSON are part of the format.
  let json = JSON.stringify(header);
  json += " ".repeat((8 - new TextEncoder().encode(json).length % 8) % 8);
  const head = new TextEncoder().encode(json);
  const bytes = new Uint8Array(8 + head.length + offset);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(head.length), true);
  bytes.set(head, 8);
  let position = 8 + head.length;
  for (const tensor of Object.values(file.tensors)) {
    bytes.set(new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength), position);
    position += tensor.data.byteLength;
  }
  return bytes;
}

/**
 * Decodes the safetensors layout.
 *
 * @throws TuckerdError `bad-model` where the bytes are not such a file or end too early
 */
export function decodeFactorFile(bytes: Uint8Array<ArrayBuffer>, where: string): FactorFile {
  try {
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
    const header = Header.parse(JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))));
    const { __metadata__: metadata, ...entries } = header;
    const tensors: Record<string, FactorTensor> = {};
    for (const [name, entry] of Object.entries(entries)) {
      const size = entry.shape.reduce((product, dimension) => product * dimension, 1);
      const [start, end] = entry.data_offsets;
      if (end - start !== 4 * size || 8 + length + end > bytes.length) {
        throw new RangeError(`tensor "${name}" of shape [${entry.shape}] lies outside the file`);
      }
      // A copy: the tensor then owns aligned memory and the file's bytes can go.
      const data = bytes.slice(8 + length + start, 8 + length + end);
      tensors[name] = { shape: entry.shape, data: new Float32Array(data.buffer) };
    }
    return { metadata, tensors };
  } catch (error) {
    throw new TuckerdError("bad-model", `${where} isn't a whole factor file: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/**
 * Writes a file whole or not at all: to a temporary name beside it, then renamed over it.
 *
 * @throws TuckerdError `failed` where the disk is full or may not be written
 */
export async function writeAtomically(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}.part`;
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeFile(temporary, bytes);
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    throw new TuckerdError(
      "failed",
      `can't write ${path}: ${(error as Error).message}; free some space, or name another folder in TUCKERD_CACHE_DIR`,
      { cause: error },
    );
  }
}
