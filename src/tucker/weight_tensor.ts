/**
 * The tensor of a large layer on the CPU, left where it is: in the weight matrices. What the sweeps need of it are products of those
 * matrices with factors, which ONNX Runtime computes from the matrices as they lie. A tensor of their numbers would take as much memory
 * again and, for a GPT-J layer, as long to write as three sweeps take.
 *
 * @module
 */
import type { AttentionWeights } from "../attention/types.ts";
import { matmul, transposed } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { HIDDEN, type LayerTensor } from "./layer_tensor.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";
import { stackDots } from "./stack_dots.ts";
import { isTransposed, placeMatrix, type Tensorisation } from "./tensorise.ts";

/** The matrices stay the caller's, and must stay as they are while the tensor is used. */
export class WeightTensor implements LayerTensor {
  readonly shape: readonly [number, number, number, number];
  readonly whole = undefined;
  readonly #matrices: readonly Matrix[];
  readonly #dots: () => Float64Array;

  /**
   * @param ops of the CPU
   * @param tensorisation with the matrices' dot products (`stackDots`) where they are known
   */
  constructor(readonly ops: TuckerOps, weights: AttentionWeights, tensorisation: Tensorisation & KnownDots) {
    const { matrices, factors, layout, dots } = tensorisation;
    const { hiddenSize, heads, headSize } = weights;
    this.#dots = () => dots ?? stackDots(weights, { matrices, layout });
    this.shape = [hiddenSize, matrices.length, heads, headSize];
    this.#matrices = matrices.map((name, slot) => ({
      numbers: weights[name],
      factor: factors[slot]!,
      turned: isTransposed(name, layout),
    }));
  }

  async project(mode: number, factor: Float64Array): Promise<OpsTensor> {
    const [hidden, stack, heads, headSize] = this.shape;
    const rank = factor.length / this.shape[mode]!;
    const [rows, width] = mode === HIDDEN ? [rank, heads * headSize] : [hidden, heads * rank];
    const projected = new Float32Array(rows * stack * width);
    const columns = new Float32Array(factor);
    const both = { columns, rows: transposed(columns, this.shape[mode]!, rank) };
    for (const [slot, matrix] of this.#matrices.entries()) {
      const product = mode === HIDDEN ? this.#hiddenProduct(matrix, both) : this.#headProduct(matrix, both);
      const { numbers, turned } = await product;
      const place = { start: slot * width, stride: stack * width, factor: matrix.factor };
      placeMatrix(numbers, projected, { ...place, rows, width, transposed: turned });
      release(numbers);
    }
    return this.ops.adopt(projected, [rows, stack, heads, width / heads]);
  }

  stackGram(): Promise<Float64Array> {
    const stack = this.#matrices.length;
    const factor = (slot: number): number => this.#matrices[slot]!.factor;
    return Promise.resolve(this.#dots().map((sum, i) => sum * factor(Math.floor(i / stack)) * factor(i % stack)));
  }

  /** Uᵀ W, r × (H·h), or its transpose. */
  async #hiddenProduct({ numbers, turned }: Matrix, { columns, rows }: BothWays): Promise<Product> {
    const [hidden, , heads, headSize] = this.shape;
    const [rank, width] = [columns.length / hidden, heads * headSize];
    if (!turned && rank >= MANY_COLUMNS) {
      return { numbers: await matmul(rows, numbers, { m: rank, k: hidden, n: width }), turned: false };
    }
    const shape = { m: width, k: hidden, n: rank, transposeA: !turned };
    return { numbers: await matmul(numbers, columns, shape), turned: true };
  }

  /** W_i U of every head, d × (H·r), or its transpose. */
  async #headProduct({ numbers, turned }: Matrix, { columns, rows }: BothWays): Promise<Product> {
    const [hidden, , heads, headSize] = this.shape;
    const rank = columns.length / headSize;
    const numbersOf = turned
      ? matmul(rows, numbers, { m: rank, k: headSize, n: hidden, batch: heads })
      : matmul(numbers, columns, { m: hidden * heads, k: headSize, n: rank });
    return { numbers: await numbersOf, turned };
  }
}

/** Fewer than these: ONNX Runtime takes longer to repack a large matrix as right operand than to multiply by it. */
const MANY_COLUMNS = 128;

/** Dot products of the tensor's slices before they are scaled, S × S. */
interface KnownDots {
  readonly dots?: Float64Array | undefined;
}

/** A factor, and its transpose. */
interface BothWays {
  readonly columns: Float32Array;
  readonly rows: Float32Array;
}

/** A matrix, or its transpose. */
interface Product {
  readonly numbers: Float32Array;
  readonly turned: boolean;
}

/** A projection as it lies. */
interface Matrix extends Product {
  /** What it is multiplied by in the tensor. */
  readonly factor: number;
}
