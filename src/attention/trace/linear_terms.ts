/**
 * Values that are linear in a projection's elements, as sums of terms. A layer's keys have hundreds of thousands of terms, so they are
 * kept in columns and not as objects.
 *
 * @module
 */

/** Most terms that an element may have: a rotation mixes pairs. */
export const MOST_TERMS = 2;

/** The terms of every element of a value: none, one or two. */
export interface LinearTrace {
  readonly shape: readonly number[];
  readonly terms: LinearTerms;
  /** Where each element's terms begin, and behind the last one where they end. */
  readonly starts: Int32Array;
}

/** A list of terms coefficient · (scale · origin + offset), one column for each of their numbers. */
export class LinearTerms {
  /** As in `Trace`. */
  readonly origin: Int32Array;
  /** Number of a coefficient's element; −1 for 1. */
  readonly coefficient: Int32Array;
  readonly scale: Float64Array;
  readonly offset: Float64Array;
  #length = 0;

  /** @param capacity the most terms that it will hold */
  constructor(capacity: number) {
    this.origin = new Int32Array(capacity);
    this.coefficient = new Int32Array(capacity);
    this.scale = new Float64Array(capacity);
    this.offset = new Float64Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** Appends scale · origin + offset. */
  push(origin: number, scale: number, offset: number): void {
    const at = this.#length++;
    this.origin[at] = origin;
    this.coefficient[at] = -1;
    this.scale[at] = scale;
    this.offset[at] = offset;
  }

  /** Multiplies the terms from `start` on by a number. */
  scaleFrom(start: number, by: number): void {
    for (let at = start; at < this.#length; at++) {
      this.scale[at]! *= by;
      this.offset[at]! *= by;
    }
  }

  /** Adds a number to the one term from `start` on; false where there are others, or it has a coefficient: the number would need its own term. */
  shiftFrom(start: number, by: number): boolean {
    const single = this.#length === start + 1 && this.coefficient[start] === -1;
    if (single) this.offset[start]! += by;
    return single;
  }

  /**
   * Multiplies the terms from `start` up to `end` by a coefficient; false where one has another, since a product of both is no element
   * of any value.
   */
  turnFrom(start: number, coefficient: number, end = this.#length): boolean {
    for (let at = start; at < end; at++) {
      if (this.coefficient[at] !== -1) return false;
      this.coefficient[at] = coefficient;
    }
    return true;
  }
}
