/**
 * Encodings as a batch of model inputs, given by the names that the model asks for.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { HostTensor, TensorInfo } from "../runtime/types.ts";
import type { Encoding } from "./encoding.ts";

/** What fills a batch besides the encodings. */
export interface BatchOptions {
  /** The model's inputs. */
  readonly inputs: readonly TensorInfo[];
  /** Id in the places after the end of a short row. */
  readonly paddingId: number;
  /** Position id of the first token. */
  readonly firstPosition: number;
}

/** Value of one token for one input; undefined beyond the end of its row. */
type Column = (encoding: Encoding | undefined, index: number) => number;

/** A batch, padded on the right to its longest row: every input has shape [encodings, tokens of the longest]. */
export function toModelInputs(
  encodings: readonly Encoding[],
  { inputs, paddingId, firstPosition }: BatchOptions,
): Record<string, HostTensor> {
  const columns: Record<string, Column> = {
    input_ids: (encoding, index) => encoding?.ids[index] ?? paddingId,
    attention_mask: (encoding) => encoding === undefined ? 0 : 1,
    token_type_ids: (encoding, index) => encoding?.typeIds[index] ?? 0,
    position_ids: (_, index) => firstPosition + index,
  };
  const width = Math.max(...encodings.map(({ ids }) => ids.length));
  return Object.fromEntries(inputs.map((info) => {
    const column = columns[info.name];
    if (column === undefined) {
      throw new TuckerdError(
        "unsupported",
        `The model asks for input "${info.name}"; question answering gives ${Object.keys(columns).join(", ")}`,
      );
    }
    const values = encodings.flatMap((encoding) =>
      Array.from({ length: width }, (_, index) => column(index < encoding.ids.length ? encoding : undefined, index))
    );
    return [info.name, integerTensor(info, [encodings.length, width], values)];
  }));
}

function integerTensor({ name, type }: TensorInfo, shape: readonly number[], values: readonly number[]): HostTensor {
  if (type === "int64") return { type, shape, data: BigInt64Array.from(values, BigInt) };
  if (type === "int32") return { type, shape, data: Int32Array.from(values) };
  throw new TuckerdError(
    "unsupported",
    `The model's input "${name}" takes ${type}; question answering gives int64 or int32`,
  );
}
