/**
 * Sizes with which a graph's dynamic dimensions are tried out. Two probes differ in every size, so a number that is the same
 * under both doesn't depend on the input's sizes.
 *
 * @module
 */
import type { ValueInfoProto } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import { shaped, UNKNOWN, type Value } from "./value.ts";

/** Sizes for the dimensions that model inputs name. */
export interface Probe {
  readonly batch: number;
  /** Tokens given to the model (to the decoder, where there are two). */
  readonly tokens: number;
  /** Tokens in the cache already. */
  readonly past: number;
  /** Tokens of an encoder. */
  readonly encoder: number;
  /** First size for names that say none of these; every further name gets the next. */
  readonly other: number;
}

/** The probe whose sizes the element traces use: small, and unlike usual head sizes. */
export const PROBE: Probe = { batch: 2, tokens: 3, past: 11, encoder: 7, other: 4 };
/** Another in which every size differs. */
export const SECOND_PROBE: Probe = { batch: 3, tokens: 5, past: 14, encoder: 9, other: 6 };
/** Gives model inputs their shapes under a probe; the same name has the same size everywhere. */
export class ProbeSizes {
  readonly probe: Probe;
  readonly #names = new Map<string, number>();

  constructor(probe: Probe) {
    this.probe = probe;
  }

  /** Shape and kind of a model input or of an annotated value. */
  valueOf(info: ValueInfoProto): Value {
    const type = info.type?.tensorType;
    if (type?.shape === undefined) return UNKNOWN;
    const shape = type.shape.dim.map((dim, i) => {
      if (dim.value.case === "dimValue") return Number(dim.value.value);
      return this.#size(dim.value.case === "dimParam" ? dim.value.value : `${info.name}.${i}`);
    });
    const floating = [DataType.FLOAT, DataType.FLOAT16, DataType.DOUBLE, DataType.BFLOAT16] as readonly number[];
    return shaped(shape, !floating.includes(type.elemType));
  }

  /** Exporters write sums such as `past_sequence_length + 1`. */
  #size(name: string): number {
    return name.split("+").reduce((sum, part) => sum + this.#atom(part.trim()), 0);
  }

  #atom(name: string): number {
    if (/^\d+$/.test(name)) return Number(name);
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    const size = this.#guess(name.toLowerCase());
    this.#names.set(name, size);
    return size;
  }

  #guess(name: string): number {
    const { batch, tokens, past, encoder, other } = this.probe;
    if (name.includes("batch")) return batch;
    if (name.includes("encoder") && !name.includes("decoder")) return encoder;
    if (name.includes("total")) return past + tokens;
    if (name.includes("past")) return past;
    if (/seq|len|token/.test(name)) return tokens;
    return other + this.#names.size;
  }
}
