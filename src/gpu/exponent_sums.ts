/**
 * What `half_sums.wgsl` finds: sums of squares of 16-bit numbers by the place of their leading bit, without rounding.
 *
 * @module
 */

/** IEEE 754-2019 binary16, or the upper half of a binary32. */
export type PatternFormat = "float16" | "bfloat16";

/** Bits of the fraction, the exponent of the smallest number above 0, and of the exponents' field. */
export const FORMATS: Readonly<Record<PatternFormat, PatternFields>> = {
  float16: { fractionBits: 10, smallest: -24, largestField: 31 },
  bfloat16: { fractionBits: 7, smallest: -133, largestField: 255 },
};

interface PatternFields {
  readonly fractionBits: number;
  readonly smallest: number;
  readonly largestField: number;
}

/** Words that the kernel writes: four of each class, and bfloat16 has the most classes. */
export const SUM_WORDS = 4 * 262;

/** The smallest normal number of binary16 is 2 to this. */
const LEAST_HALF = -14;

/** Sums of squares of the numbers of a matrix. */
export class ExponentSums {
  readonly #fields: PatternFields;
  /** Of each class, in float64, in units of the square of the format's smallest number and of 4^(class − F) above the subnormal ones. */
  readonly #sums: Float64Array;

  constructor(format: PatternFormat, words: Uint32Array) {
    this.#fields = FORMATS[format];
    const at = (word: number): number => words[word]! + 2 ** 16 * words[word + 1]!;
    this.#sums = Float64Array.from({ length: words.length / 4 }, (_, bin) => at(4 * bin) + 2 ** 11 * at(4 * bin + 2));
  }

  /** Is every number finite? */
  get finite(): boolean {
    const { fractionBits, largestField } = this.#fields;
    return this.#sums[fractionBits + largestField - 1] === 0;
  }

  /** Σ w² in float64: one rounding for each exponent at most. */
  get squares(): number {
    return this.#below(Infinity);
  }

  /** Σ w² of the numbers that float16 storage makes zero where they are multiplied by 2^scale before. */
  flushed(scale: number): number {
    return this.#below(LEAST_HALF - scale);
  }

  /** Σ w² of the numbers below 2^exponent, the smallest first. */
  #below(exponent: number): number {
    const { fractionBits, smallest, largestField } = this.#fields;
    let sum = 0;
    for (let bin = 0; bin < fractionBits + largestField - 1 && smallest + bin < exponent; bin++) {
      sum += this.#sums[bin]! * 4 ** (smallest + Math.max(0, bin - fractionBits));
    }
    return sum;
  }
}
