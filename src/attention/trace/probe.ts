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
  /** First size for names that say none of these; every further name gets the next, larger by `apart`. */
  readonly other: number;
  readonly apart: number;
}

/** The probe whose sizes the element traces use: small, and unlike usual head sizes. */
export const PROBE: Probe = { batch: 2, tokens: 3, past: 11, encoder: 7, other: 4, apart: 1 };
/** Another in which every size differs. */
export const SECOND_PROBE: Probe = { batch: 3, tokens: 5, past: 14, encoder: 9, other: 6, apart: 1 };

/** A probe with `factor` times its sizes, the batch apart. */
export function enlarged({ batch, tokens, past, encoder, other, apart }: Probe, factor: number): Probe {
  return {
    batch,
    tokens: tokens * factor,
    past: past * factor,
    encoder: encoder * factor,
    other: other * factor,
    apart: apart * factor,
  };
}

/** Gives model inputs their shapes under a probe; the same name has the same size everywhere. */
export class ProbeSizes {
  readonly probe: Probe;
  readonly #names = new Map<string, number>();
  readonly #cached: boolean;

  /** Sizes for a graph with these inputs. */
  constructor(probe: Probe, inputs: readonly ValueInfoProto[]) {
    this.probe = probe;
    this.#cached = inputs.some(({ name }) => PAST.test(name));
    // Sums of names are worked out from names that stand alone, whichever input comes first.
    for (const input of inputs) {
      symbolsOf(input).forEach((symbol, axis, { length }) => {
        if (typeof symbol === "string" && !symbol.includes("+")) this.#size(symbol, this.#byPlace(input, axis, length));
      });
    }
  }

  /** Shape and kind of a model input. */
  valueOf(info: ValueInfoProto): Value {
    return this.#value(info, (axis, rank) => this.#byPlace(info, axis, rank));
  }

  /** Shape and kind that a graph annotates a value with. */
  annotated(info: ValueInfoProto): Value {
    return this.#value(info, () => undefined);
  }

  #value(info: ValueInfoProto, byPlace: (axis: number, rank: number) => number | undefined): Value {
    const type = info.type?.tensorType;
    if (type?.shape === undefined) return UNKNOWN;
    const shape = symbolsOf(info).map((symbol, axis, { length }) =>
      typeof symbol === "number" ? symbol : this.#size(symbol, byPlace(axis, length))
    );
    const floating = [DataType.FLOAT, DataType.FLOAT16, DataType.DOUBLE, DataType.BFLOAT16] as readonly number[];
    return shaped(shape, !floating.includes(type.elemType));
  }

  /** Exporters write sums such as `past_sequence_length + 1`. */
  #size(name: string, byPlace: number | undefined): number {
    const parts = name.split("+");
    return parts.reduce((sum, part) => sum + this.#atom(part.trim(), parts.length === 1 ? byPlace : undefined), 0);
  }

  #atom(name: string, byPlace: number | undefined): number {
    if (/^\d+$/.test(name)) return Number(name);
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    const named = name.startsWith(NAMELESS) ? undefined : this.#byName(name.toLowerCase());
    const size = named ?? byPlace ?? this.probe.other + this.probe.apart * this.#names.size;
    this.#names.set(name, size);
    return size;
  }

  #byName(name: string): number | undefined {
    const { batch, tokens, past, encoder } = this.probe;
    if (name.includes("batch")) return batch;
    if (name.includes("encoder") && !name.includes("decoder")) return encoder;
    if (name.includes("total")) return past + tokens;
    if (name.includes("past")) return past;
    if (/seq|len|token/.test(name)) return tokens;
    return undefined;
  }

  /**
   * Sizes whose names say nothing (torch.export writes `s77`, and one name for each input): the batch comes first, then what
   * the input's own name tells.
   */
  #byPlace({ name }: ValueInfoProto, axis: number, rank: number): number | undefined {
    const { batch, tokens, past, encoder } = this.probe;
    const input = name.toLowerCase();
    const first = rank === 1 ? 0 : 1;
    if (axis < first) return batch;
    if (input.includes("encoder") && !input.includes("decoder")) return encoder;
    if (PAST.test(input)) return past;
    if (axis > first) return undefined;
    if (input.includes("mask")) return this.#cached ? past + tokens : tokens;
    return /ids|position/.test(input) ? tokens : undefined;
  }
}

/** Inputs that hold a cache. */
const PAST = /past|cache_(key|value)|key_cache|value_cache/;

/** Begins the name that a nameless size is given. */
const NAMELESS = "?";

/** Sizes of a value: numbers, names, or for nameless ones a name made of the value's own. */
function symbolsOf({ name, type }: ValueInfoProto): (number | string)[] {
  return (type?.tensorType?.shape?.dim ?? []).map(({ value }, axis) =>
    value.case === "dimValue"
      ? Number(value.value)
      : value.case === "dimParam" && value.value !== ""
      ? value.value
      : `${NAMELESS}${name}.${axis}`
  );
}
