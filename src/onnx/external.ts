/**
 * External data: tensors whose bytes lie in files beside the model ("External Data" of the ONNX specification).
 *
 * @module
 */
import { normalize } from "node:path/posix";
import { TuckerdError } from "../errors.ts";
import type { TensorProto } from "./gen/onnx_pb.ts";

/** Where the bytes of an external tensor are. */
export interface ExternalLocation {
  /** Relative to the model's folder, without detours. */
  readonly location: string;
  /** The file, with its folder. */
  readonly path: string;
  readonly offset: number;
  /** Undefined: to the end of the file. */
  readonly length: number | undefined;
}

/**
 * Reads where an external tensor is stored.
 *
 * @throws TuckerdError "bad-model" if the location is missing or leaves the model's folder.
 */
export function externalLocation(tensor: TensorProto, folder: string): ExternalLocation {
  const entries = new Map(tensor.externalData.map((entry) => [entry.key, entry.value]));
  const location = entries.get("location");
  if (location === undefined || location === "" || location.startsWith("/") || location.split(/[\\/]/).includes("..")) {
    throw new TuckerdError(
      "bad-model",
      `external data of tensor ${tensor.name} must name a file inside the model's folder, got ${location ?? "nothing"}`,
    );
  }
  const bytes = (key: string): number | undefined => {
    const text = entries.get(key);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text !== "" && Number.isSafeInteger(value) && value >= 0) return value;
    throw new TuckerdError(
      "bad-model",
      `external data of tensor ${tensor.name}: ${key} must be a number of bytes, got "${text}"`,
    );
  };
  return {
    location: normalize(location),
    path: `${folder}/${normalize(location)}`,
    offset: bytes("offset") ?? 0,
    length: bytes("length"),
  };
}

/**
 * Reads the range of one external tensor.
 *
 * @throws TuckerdError "bad-model" if the file is missing or too short.
 */
export function readExternal(source: ExternalLocation, expected: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(source.length ?? expected);
  for (const _ of readExternalPieces(source, bytes.length, bytes));
  return bytes;
}

/**
 * Reads `length` bytes of an external tensor through a buffer, which holds one piece at a time: all are as long as it is, but the last.
 *
 * @throws TuckerdError "bad-model" if the file is missing or too short.
 */
export function* readExternalPieces(
  source: ExternalLocation,
  length: number,
  buffer: Uint8Array<ArrayBuffer>,
): Generator<Uint8Array<ArrayBuffer>> {
  using file = openData(source);
  file.seekSync(source.offset, Deno.SeekMode.Start);
  for (let left = length; left > 0;) {
    const piece = buffer.subarray(0, left);
    for (let done = 0; done < piece.length;) {
      const count = file.readSync(piece.subarray(done));
      if (count === null) {
        throw new TuckerdError(
          "bad-model",
          `external data ${source.path} ends ${left - done} bytes before the tensor at offset ${source.offset} does`,
        );
      }
      done += count;
    }
    left -= piece.length;
    yield piece;
  }
}

function openData(source: ExternalLocation): Deno.FsFile {
  try {
    return Deno.openSync(source.path);
  } catch (error) {
    throw new TuckerdError("bad-model", `external data ${source.path} can't be opened: ${String(error)}`, {
      cause: error,
    });
  }
}
