/**
 * The tensor of a large layer on the CPU, left where it is: in the weight matrices. What the sweeps need of it are products of those
 * matrices with factors, which ONNX Runtime computes from the matrices as they lie. A tensor of their numbers would take as much memory
 * again and, for a GPT-J layer, as long to write as three sweeps take.
 *
 * @module
 */
import type { AttentionWeights } from "../attention/types.ts";
import { type GraphInput, matmul, runGraph } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { HIDDEN, type LayerTensor, type SmallFactors } from "./layer_tensor.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";
import { stackDots } from "./stack_dots.ts";
import { isTransposed, placeMatrix, type Tensorisation } from "./tensorise.ts";
import { factorOf, headsGraph, hiddenGraph, weightsOf } from "./weight_graphs.ts";

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

  /** Can float32 factors carry what the matrices are multiplied by? Not for weights near the ends of float32's range. */
  static takes({ factors }: Pick<Tensorisation, "factors">): boolean {
    return factors.every((factor) => factor === 0 || (factor >= 1e-30 && factor <= 1e30));
  }

  async project(mode: number, factor: Float64Array): Promise<OpsTensor> {
    const [hidden, stack, heads, headSize] = this.shape;
    const rank = factor.length / this.shape[mode]!;
    if (mode === HIDDEN && rank >= MANY_COLUMNS) return await this.#projectMany(factor, rank);
    const [rows, width] = mode === HIDDEN ? [rank, heads * headSize] : [hidden, heads * rank];
    const projected = new Float32Array(rows * stack * width);
    const columns = new Float32Array(factor);
    for (const [slot, matrix] of this.#matrices.entries()) {
      const product = mode === HIDDEN ? this.#hiddenProduct(matrix, columns) : this.#headProduct(matrix, columns);
      const { numbers, turned } = await product;
      const place = { start: slot * width, stride: stack * width, factor: matrix.factor };
      placeMatrix(numbers, projected, { ...place, rows, width, transposed: turned });
      release(numbers);
    }
    return this.ops.adopt(projected, [rows, stack, heads, width / heads]);
  }

  async projectSmall({ u2, u3 }: SmallFactors): Promise<OpsTensor> {
    const [hidden, stack, heads, headSize] = this.shape;
    const [r2, r3] = [u2.length / headSize, u3.length / stack];
    const mixed = (slot: number): Float32Array => {
      const { factor } = this.#matrices[slot]!;
      return Float32Array.from({ length: headSize * r3 * r2 }, (_, i) => {
        const [row, k, column] = [Math.floor(i / r2 / r3), Math.floor(i / r2) % r3, i % r2];
        return u2[row * r2 + column]! * u3[slot * r3 + k]! * factor;
      });
    };
    const inputs = this.#inputs((slot, { turned }) => ({
      weights: turned ? [heads, headSize, hidden] : [hidden, heads, headSize],
      factor: { data: mixed(slot), dims: [headSize, r3 * r2] },
    }));
    const { name, make } = headsGraph(this.#turned, r3);
    const shape = [hidden, r3, heads, r2];
    return this.ops.adopt(await runGraph(name, make, inputs, shape), shape);
  }

  stackGram(): Promise<Float64Array> {
    const stack = this.#matrices.length;
    const factor = (slot: number): number => this.#matrices[slot]!.factor;
    return Promise.resolve(this.#dots().map((sum, i) => sum * factor(Math.floor(i / stack)) * factor(i % stack)));
  }

  get #turned(): boolean[] {
    return this.#matrices.map(({ turned }) => turned);
  }

  /** What a graph takes: for every slot the weights under a shape, and a factor. */
  #inputs(make: (slot: number, matrix: Matrix) => SlotInputs): Record<string, GraphInput<Float32Array>> {
    return Object.fromEntries(this.#matrices.flatMap((matrix, slot) => {
      const { weights, factor } = make(slot, matrix);
      return [[weightsOf(slot), { data: matrix.numbers, dims: weights }], [factorOf(slot), factor]];
    }));
  }

  /** Uᵀ W of all matrices, for a U of many columns (d × rank). */
  async #projectMany(u1: Float64Array, rank: number): Promise<OpsTensor> {
    const [hidden, stack, heads, headSize] = this.shape;
    const width = heads * headSize;
    const rows = new Map<number, Float32Array>();
    for (const { factor } of this.#matrices) {
      if (!rows.has(factor)) rows.set(factor, scaledTranspose(u1, { rows: hidden, columns: rank, factor }));
    }
    const inputs = this.#inputs((_, { turned, factor }) => ({
      weights: turned ? [width, hidden] : [hidden, width],
      factor: { data: rows.get(factor)!, dims: [rank, hidden] },
    }));
    const { name, make } = hiddenGraph(this.#turned);
    const projected = await runGraph(name, make, inputs, [rank, stack * width]);
    return this.ops.adopt(projected, [rank, stack, heads, headSize]);
  }

  /** The transpose of Uᵀ W, (H·h) × r, for a U of few columns (d × r). */
  async #hiddenProduct({ numbers, turned }: Matrix, columns: Float32Array): Promise<Product> {
    const [hidden, , heads, headSize] = this.shape;
    const shape = { m: heads * headSize, k: hidden, n: columns.length / hidden, transposeA: !turned };
    return { numbers: await matmul(numbers, columns, shape), turned: true };
  }

  /** W_i U of every head, d × (H·r), or its transpose. */
  async #headProduct({ numbers, turned }: Matrix, columns: Float32Array): Promise<Product> {
    const [hidden, , heads, headSize] = this.shape;
    const rank = columns.length / headSize;
    const numbersOf = turned
      ? matmul(columns, numbers, { m: rank, k: headSize, n: hidden, batch: heads, transposeA: true })
      : matmul(numbers, columns, { m: hidden * heads, k: headSize, n: rank });
    return { numbers: await numbersOf, turned };
  }
}

/** Uᵀ times a factor, for U of rows × columns. */
function scaledTranspose(matrix: Float64Array, { rows, columns, factor }: ScaledMatrix): Float32Array {
  const result = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) result[j * rows + i] = matrix[i * columns + j]! * factor;
  }
  return result;
}

interface ScaledMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly factor: number;
}

/** What a graph takes for one slot. */
interface SlotInputs {
  /** Shape under which the weights go in. */
  readonly weights: readonly number[];
  readonly factor: GraphInput<Float32Array>;
}

/** Fewer than these: ONNX Runtime takes longer to repack a large matrix as right operand than to multiply by it. */
const MANY_COLUMNS = 128;

/** Dot products of the tensor's slices before they are scaled, S × S. */
interface KnownDots {
  readonly dots?: Float64Array | undefined;
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
