/**
 * The terms of which new keys are made, read from the linear views of a product's operand: the same for every row, token and head.
 *
 * @module
 */
import type { HeadView } from "./heads.ts";
import { isNear, type KeyOperand } from "./key_operand.ts";

/** One summand of a key. */
export interface RotationTerm {
  /** Which coefficient; undefined for 1. */
  readonly coefficient: number | undefined;
  readonly scale: number;
  /** Which of the head's projected numbers, in the order of the view's columns. */
  readonly from: number;
}

/** A term before its coefficient is known among the others. */
type Read = Omit<RotationTerm, "coefficient"> & { readonly coefficient: number; readonly bias: number };

/** Reads summands of new keys as terms of their head's own numbers. */
export class TermReader {
  readonly view: HeadView;
  readonly operand: KeyOperand;
  readonly #first: number;
  readonly #places: readonly ReadonlyMap<number, number>[];

  /** @param first origin of the projection's first element */
  constructor(view: HeadView, { operand, first }: { readonly operand: KeyOperand; readonly first: number }) {
    const { heads, headSize: h, columns } = view;
    this.view = view;
    this.operand = operand;
    this.#first = first;
    this.#places = Array.from(
      { length: heads },
      (_, i) => new Map(Array.from(columns.subarray(i * h, (i + 1) * h), (column, at) => [column, at])),
    );
  }

  /** Terms of number j of a head at a new token, by `from`; undefined where there are none, or one comes from elsewhere. */
  terms(row: number, head: number, token: number, j: number): readonly Read[] | undefined {
    const { tokens, past, element, trace: { terms, starts } } = this.operand;
    const width = this.view.projection.columns;
    const start = this.#first + (row * tokens + token) * width;
    const at = element(row, head, past + token, j);
    const read: Read[] = [];
    for (let term = starts[at]!; term < starts[at + 1]!; term++) {
      const [from, scale] = [this.#places[head]!.get(terms.origin[term]! - start), terms.scale[term]!];
      if (from === undefined || scale === 0) return undefined;
      read.push({ from, coefficient: terms.coefficient[term]!, scale, bias: terms.offset[term]! / scale });
    }
    return read.length === 0 ? undefined : read.sort((a, b) => a.from - b.from);
  }
}

/** A rotation before it is known where its coefficients stand. */
export interface Turned {
  /** Of every number of a head, in the product's order. */
  readonly terms: readonly (readonly RotationTerm[])[];
  /** What numbers of the other heads are multiplied by besides, [H · h] like `bias`: 1 in the first; undefined where all are 1. */
  readonly gain: Float32Array | undefined;
  /** Biases [H · h], in the order of the view's columns; undefined where there are none. */
  readonly bias: Float32Array | undefined;
  /** The product reads these keys times the ones that the model gives out. */
  readonly multiple: number;
  /** What coefficients are the same numbers elsewhere, at [row · token][coefficient]. */
  readonly identities: readonly (readonly number[])[];
  /** Numbers of the coefficients, at [coefficient][row][token]. */
  readonly places: readonly (readonly (readonly number[])[])[];
}

/**
 * Reads the terms of the first row, head and token; undefined where others don't have the same.
 *
 * @param read what a coefficient is: equal for those that are the same number in every call
 */
export function readTurned(reader: TermReader, read: (coefficient: number) => number | undefined): Turned | undefined {
  const { headSize: h } = reader.view;
  const pattern = Array.from({ length: h }, (_, j) => reader.terms(0, 0, 0, j));
  if (!pattern.every((terms) => terms !== undefined)) return undefined;
  const kinds = kindsOf(pattern, read);
  if (kinds === undefined) return undefined;
  const terms = pattern.map((list) =>
    list.map(({ coefficient, scale, from }): RotationTerm => ({
      coefficient: coefficient === -1 ? undefined : kinds.get(read(coefficient)!)!.kind,
      scale,
      from,
    }))
  );
  const { batch, tokens, multiple } = reader.operand;
  const [biases, gains] = [new HeadNumbers(reader.view), new HeadNumbers(reader.view)];
  const identities: number[][] = [];
  const places = [...kinds.values()].map((): number[][] => Array.from({ length: batch }, () => []));
  for (let row = 0; row < batch; row++) {
    for (let token = 0; token < tokens; token++) {
      const numbers = [...kinds.values()].map(({ j, k }) => reader.terms(row, 0, token, j)?.[k]?.coefficient ?? -1);
      if (numbers.includes(-1)) return undefined;
      const here = numbers.map((number) => read(number)!);
      identities.push(here);
      numbers.forEach((number, kind) => places[kind]![row]!.push(number));
      const same = (found: Read, wanted: RotationTerm): boolean =>
        found.from === wanted.from &&
        (found.coefficient === -1 ? undefined : read(found.coefficient)) ===
          (wanted.coefficient === undefined ? undefined : here[wanted.coefficient]);
      if (!everyHead(reader, { row, token }, { terms, same, biases, gains })) return undefined;
    }
  }
  const [gain, bias] = [gains.unlessAll(1), biases.unlessAll(0)];
  return { terms, gain, bias, multiple, identities, places };
}

/**
 * The coefficients of a pattern, by what they are: equal ones are one. Their order follows from the rotation alone, so that graphs that
 * share a cache keep them alike: first those of all numbers' first terms.
 */
function kindsOf(
  pattern: readonly (readonly Read[])[],
  read: (coefficient: number) => number | undefined,
): ReadonlyMap<number, { readonly j: number; readonly k: number; readonly kind: number }> | undefined {
  const kinds = new Map<number, { readonly j: number; readonly k: number; readonly kind: number }>();
  for (let k = 0; pattern.some((terms) => k < terms.length); k++) {
    for (const [j, terms] of pattern.entries()) {
      const coefficient = terms[k]?.coefficient ?? -1;
      if (coefficient === -1) continue;
      const identity = read(coefficient);
      if (identity === undefined) return undefined;
      if (!kinds.has(identity)) kinds.set(identity, { j, k, kind: kinds.size });
    }
  }
  return kinds;
}

/** Whether all numbers of all heads have the terms at a place, each projected number with one bias, and with one gain beside the first head's. */
function everyHead(
  reader: TermReader,
  { row, token }: { readonly row: number; readonly token: number },
  { terms, same, biases, gains }: {
    readonly terms: readonly (readonly RotationTerm[])[];
    readonly same: (found: Read, wanted: RotationTerm) => boolean;
    readonly biases: HeadNumbers;
    readonly gains: HeadNumbers;
  },
): boolean {
  for (let head = 0; head < reader.view.heads; head++) {
    for (const [j, wanted] of terms.entries()) {
      const found = reader.terms(row, head, token, j);
      const fits = found?.length === wanted.length &&
        found.every((term, k) =>
          same(term, wanted[k]!) && biases.agree(head, term.from, term.bias) &&
          gains.agree(head, term.from, term.scale / wanted[k]!.scale)
        );
      if (!fits) return false;
    }
  }
  return true;
}

/** A number for each of a view's, as they are met. */
class HeadNumbers {
  readonly #met: Float32Array;
  readonly #size: number;

  constructor({ heads, headSize }: HeadView) {
    this.#met = new Float32Array(heads * headSize).fill(NaN);
    this.#size = headSize;
  }

  /** Whether a head's projected number is met with what it had before. */
  agree(head: number, from: number, number: number): boolean {
    const at = head * this.#size + from;
    if (Number.isNaN(this.#met[at])) this.#met[at] = number;
    return isNear(this.#met[at]!, number);
  }

  /** [H · h], with a number where nothing was met; undefined where all are that. */
  unlessAll(number: number): Float32Array | undefined {
    const values = this.#met.map((value) => Number.isNaN(value) ? number : value);
    return values.every((value) => isNear(value, number)) ? undefined : values;
  }
}
