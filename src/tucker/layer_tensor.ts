/**
 * The d×S×H×h tensor of a layer as the sweeps see it: something that is projected in its two large modes, again and again.
 *
 * @module
 */
import type { TensorEngine } from "./engine.ts";
import type { OpsTensor } from "./ops.ts";

/** Modes of the tensor d×S×H×h. */
export const HIDDEN = 0;
export const STACK = 1;
export const HEAD_SIZE = 3;

/** A tensor of norm 1, however it is stored. */
export interface LayerTensor {
  /** d, S, H, h. */
  readonly shape: readonly [number, number, number, number];
  /** The tensor itself where it is stored as one. */
  readonly whole: OpsTensor | undefined;
  /**
   * tensor ×mode Uᵀ.
   *
   * @param factor n × r, n being the mode's size
   */
  project(mode: typeof HIDDEN | typeof HEAD_SIZE, factor: Float64Array): Promise<OpsTensor>;
  /**
   * tensor ×STACK U3ᵀ ×HEAD_SIZE U2ᵀ.
   *
   * @param small U2 (h × r2) and U3 (S × r3)
   */
  projectSmall(small: SmallFactors): Promise<OpsTensor>;
  /** Gram matrix of the stack mode, S × S. */
  stackGram(): Promise<Float64Array>;
}

/** Factors of the head-size and the stack mode. */
export interface SmallFactors {
  readonly u2: Float64Array;
  readonly u3: Float64Array;
}

/** A tensor that is stored as one. */
export class WholeTensor implements LayerTensor {
  readonly shape: readonly [number, number, number, number];

  constructor(readonly engine: TensorEngine, readonly whole: OpsTensor) {
    this.shape = whole.shape as [number, number, number, number];
  }

  project(mode: number, factor: Float64Array): Promise<OpsTensor> {
    const length = this.shape[mode]!;
    using matrix = this.engine.upload(factor, [length, factor.length / length]);
    return Promise.resolve(this.engine.modeProduct(this.whole, mode, matrix));
  }

  async projectSmall({ u2, u3 }: SmallFactors): Promise<OpsTensor> {
    using once = await this.project(HEAD_SIZE, u2);
    const stack = this.shape[STACK];
    using matrix = this.engine.upload(u3, [stack, u3.length / stack]);
    return this.engine.modeProduct(once, STACK, matrix);
  }

  stackGram(): Promise<Float64Array> {
    return this.engine.gram(this.whole, STACK);
  }
}
