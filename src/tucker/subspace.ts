/**
 * The leading subspace of one mode of a tensor: an orthonormal factor matrix and the energy that it keeps.
 *
 * Small modes, and all modes of small tensors, are solved for directly. In a large tensor's sweeps a large mode's factor is only
 * improved, by filtered subspace iteration (`linalg/block_subspace.ts`) from the factor of the sweep before, since a sweep doesn't need the
 * exact subspace: for 256 directions of 768 a filter takes a tenth of the direct solver's time. Block methods
 * lost here while each sweep had to end in a converged subspace: the spectra of attention weights are flat, so that the last 1e-6 of the
 * energy takes many iterations, and the next sweep moves the subspace by more than that. One filter a sweep lets both converge together.
 *
 * @module
 */
import {
  filteredBasis,
  matmul,
  orthonormalBlock,
  orthonormalColumns,
  startBlock,
  symmetricEigen,
  transposed,
} from "../linalg/mod.ts";
import type { TensorEngine } from "./engine.ts";
import type { OpsTensor } from "./ops.ts";

/** A factor matrix and the part of the tensor's squared norm that its projection keeps. */
export interface ModeFactor {
  /** n × rank, orthonormal columns. */
  readonly matrix: Float64Array;
  readonly energy: number;
}

/** Which mode, and how many directions are wanted. */
export interface ModeRank {
  readonly mode: number;
  readonly rank: number;
}

/**
 * The `rank` leading left singular vectors of the mode's unfolding, from the eigenvectors of its Gram matrix. For the
 * first mode, the Gram matrix is taken on the side that is smaller.
 */
export async function leadingFactor(
  engine: TensorEngine,
  tensor: OpsTensor,
  { mode, rank }: ModeRank,
): Promise<ModeFactor> {
  const length = tensor.shape[mode]!;
  const behind = sizeBehind(tensor, mode);
  if (mode === 0 && behind < length) return await fromRows(engine, engine.reshape(tensor, [length, behind]), rank);
  const { values, vectors } = await symmetricEigen(await engine.gram(tensor, mode), length, rank);
  return { matrix: vectors, energy: sum(values.subarray(0, rank)) };
}

/**
 * Left singular vectors of a tall m×n matrix A: from the right ones V (eigenvectors of AᵀA), A V has the left ones as
 * columns, times singular values. Directions beyond the rank of A, where more are wanted, are any that are orthogonal.
 */
async function fromRows(engine: TensorEngine, matrix: OpsTensor, rank: number): Promise<ModeFactor> {
  const n = matrix.shape[1]!;
  const known = Math.min(rank, n);
  const { values, vectors } = await symmetricEigen(await engine.gram(matrix, 1), n, known);
  return { matrix: await leftVectors(engine, matrix, { vectors, rank }), energy: sum(values.subarray(0, known)) };
}

/** An orthonormal basis of `rank` columns whose first ones span A V, for an m×n matrix A and V (n × at most rank). */
async function leftVectors(
  engine: TensorEngine,
  matrix: OpsTensor,
  { vectors, rank }: { readonly vectors: Float64Array; readonly rank: number },
): Promise<Float64Array> {
  const [m, n] = matrix.shape as [number, number];
  const known = vectors.length / n;
  using right = engine.upload(vectors, [n, known]);
  using product = engine.matmul(matrix, right);
  const columns = await engine.download(product);
  if (known === rank) return await orthonormalColumns(columns, m, rank);
  const padded = new Float64Array(m * rank);
  for (let i = 0; i < m; i++) padded.set(columns.subarray(i * known, (i + 1) * known), i * rank);
  return await orthonormalColumns(padded, m, rank);
}

/** Smaller eigenproblems are solved directly in less time. */
const BLOCK_SIZE = 320;
/** A larger share of all directions is no longer cheaper to iterate on. */
const BLOCK_SHARE = 0.7;

/** Can `improvedFactor` improve the first mode's factor of such a tensor, or must it be solved for? */
export function canImprove(engine: TensorEngine, tensor: OpsTensor, rank: number): boolean {
  const n = Math.min(tensor.shape[0]!, sizeBehind(tensor, 0));
  return engine.large && n >= BLOCK_SIZE && rank <= BLOCK_SHARE * n;
}

/** The factor of the sweep before. */
export interface FactorBefore {
  /** length × rank, orthonormal columns. */
  readonly factor: Float64Array;
  /** The tensor projected by it in the first mode. */
  readonly image: OpsTensor;
}

/**
 * A factor (length × rank, orthonormal columns) of the first mode that keeps more energy than the one of the sweep before, or, where
 * there is none, nearly as much as the leading one (sweeps end no higher for it). Where the iteration can't be trusted (see
 * `filteredBasis`), the leading one.
 */
export async function improvedFactor(
  engine: TensorEngine,
  tensor: OpsTensor,
  { rank, before }: { readonly rank: number; readonly before?: FactorBefore },
): Promise<Float64Array> {
  const [length, behind] = [tensor.shape[0]!, sizeBehind(tensor, 0)];
  const problem = new ModeProblem(engine, engine.reshape(tensor, [length, behind]), rank);
  const basis = before === undefined ? await problem.fromNothing() : await problem.from(before);
  if (basis === undefined) return (await leadingFactor(engine, tensor, { mode: 0, rank })).matrix;
  if (problem.left) return basis;
  return await leftVectors(engine, problem.matrix, { vectors: basis, rank });
}

/** The eigenproblem of A Aᵀ or AᵀA for an m×n matrix A, whichever is smaller. */
class ModeProblem {
  readonly n: number;
  /** Is it A Aᵀ? */
  readonly left: boolean;
  #gram: Float32Array | undefined;

  constructor(readonly engine: TensorEngine, readonly matrix: OpsTensor, readonly rank: number) {
    const [m, n] = matrix.shape as [number, number];
    this.n = Math.min(m, n);
    this.left = m <= n;
  }

  /** A basis found without one to start from; undefined where that can't be trusted. */
  async fromNothing(): Promise<Float64Array | undefined> {
    const { n, rank } = this;
    this.#gram = new Float32Array(await this.engine.gram(this.matrix, this.left ? 0 : 1));
    const diagonal = Float64Array.from({ length: n }, (_, i) => this.#gram![i * (n + 1)]!);
    const basis = await orthonormalBlock(await this.product(startBlock(diagonal, rank)), n, rank);
    return basis && await filteredBasis(this, { basis });
  }

  /** A better basis than the one before; undefined where that can't be trusted. */
  async from({ factor, image }: FactorBefore): Promise<Float64Array | undefined> {
    const { engine, n, rank } = this;
    const before = engine.reshape(image, [rank, this.matrix.shape[1]!]); // UᵀA
    const columns = "eigenvectors";
    if (this.left) {
      using product = engine.matmul(this.matrix, before, { transposeB: true });
      return await filteredBasis(this, {
        basis: factor,
        columns,
        image: await engine.read(product),
      });
    }
    const right = transposed(await engine.download(before), rank, n);
    const basis = await orthonormalBlock(right, n, rank);
    return basis && await filteredBasis(this, { basis, columns });
  }

  /** G = A Aᵀ or AᵀA times a block (n × rank), in float32. */
  async product(block: Float32Array): Promise<Float32Array> {
    const { n, rank } = this;
    if (this.#gram !== undefined) return await matmul(this.#gram, block, { m: n, k: n, n: rank });
    using given = this.engine.upload(block, [n, rank]);
    using once = this.engine.matmul(this.matrix, given, { transposeA: this.left });
    using twice = this.engine.matmul(this.matrix, once, { transposeA: !this.left });
    return await this.engine.read(twice);
  }

  /** A step of the filter in one go, where the engine has it and G isn't there as a matrix. */
  step(current: Float32Array, before: Float32Array, scale: number): Promise<Float32Array> | undefined {
    if (this.#gram !== undefined) return undefined;
    return this.engine.filterStep?.(this.matrix, { current, before, scale, across: !this.left });
  }
}

function sizeBehind(tensor: OpsTensor, mode: number): number {
  return tensor.shape.slice(mode + 1).reduce((product, size) => product * size, 1);
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
