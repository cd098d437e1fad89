/**
 * The full (untruncated) HOSVD of a layer: singular values of each mode, the error of any ranks from one table, and
 * factors of any ranks by slicing, without the original weights.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { symmetricEigen } from "../linalg/mod.ts";
import { engineFor, type TensorEngine } from "./engine.ts";
import { ErrorTable } from "./error_table.ts";
import type { OpsTensor, TuckerOps } from "./ops.ts";
import { placeWeights } from "./layer_weights.ts";
import { normalisation, scaledNumbers } from "./normalise.ts";
import { checkRanks } from "./ranks.ts";
import { checkWeights, type LayerPlace } from "./tensorise.ts";
import type { LayerDecomposition, Layout, Ranks, TuckerFactors } from "./types.ts";

/** What to decompose. */
export interface HosvdOptions {
  readonly layout: Layout;
  /** Scale Q, K, V and O to equal norm first; the errors are then those of the scaled tensor. */
  readonly balance: boolean;
  /** The stack; all four matrices by default, one for a matrix alone. */
  readonly matrices?: readonly MatrixName[] | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly where: LayerPlace;
}

/** Singular values of the three unfoldings, descending, in units of the weights. */
export interface ModeSpectra {
  /** d values. */
  readonly hidden: Float64Array;
  /** h values. */
  readonly headSize: Float64Array;
  /** 4 values (or as many as matrices were stacked). */
  readonly stack: Float64Array;
}

/** A layer in the bases of its own singular vectors. */
export interface Hosvd {
  /** Factors of full rank: truncating them is slicing. */
  readonly factors: TuckerFactors;
  readonly singularValues: ModeSpectra;
  readonly errors: ErrorTable;
}

/** Modes of the stored tensor d×S×H×h. */
const HIDDEN = 0;
const STACK = 1;
const HEAD_SIZE = 3;

/**
 * Decomposes a layer's tensor without truncation.
 *
 * @throws TuckerdError `invalid` naming layer and matrix for weights that can't be decomposed; `cancelled`.
 */
export async function hosvd(weights: AttentionWeights, options: HosvdOptions, ops: TuckerOps): Promise<Hosvd> {
  const { layout, where, matrices = MATRICES } = options;
  checkWeights(weights, layout, where);
  using placed = await placeWeights(weights, { layout, where }, ops);
  const { norm, factors, matrixScales } = normalisation(placed.norms, { ...options, matrices });
  const { hiddenSize, heads, headSize } = weights;
  const shape = [hiddenSize, matrices.length, heads, headSize] as const;
  const engine = engineFor(ops, shape.reduce((product, size) => product * size));
  using tensor = await placed.tensor(engine, { matrices, factors, layout }, shape);
  placed[Symbol.dispose]();
  const bases: Basis[] = [];
  for (const mode of [STACK, HEAD_SIZE, HIDDEN]) {
    if (options.signal?.aborted) throw new TuckerdError("cancelled", "the decomposition was cancelled");
    bases[mode] = await basis(engine, tensor, mode);
  }
  const core = permuted(await project(engine, tensor, bases), shape);
  const [u1, u2, u3] = [bases[HIDDEN]!, bases[HEAD_SIZE]!, bases[STACK]!];
  const spectrum = ({ values }: Basis): Float64Array => values.map((value) => Math.sqrt(Math.max(0, value)) * norm);
  return {
    factors: {
      ranks: [hiddenSize, headSize, matrices.length],
      u1: new Float32Array(u1.vectors),
      u2: new Float32Array(u2.vectors),
      u3: new Float32Array(u3.vectors),
      core: scaledNumbers(core, norm),
      matrixScales,
    },
    singularValues: { hidden: spectrum(u1), headSize: spectrum(u2), stack: spectrum(u3) },
    errors: ErrorTable.fromEnergies([hiddenSize, headSize, matrices.length], energiesByHead(core, heads)),
  };
}

/**
 * The decomposition at lower ranks by slicing full factors, with its errors, from the HOSVD alone: the weights aren't read. The errors
 * are exact for the weights that the full factors stand for (the originals to float32's rounding), and sums of squares, so that
 * nothing cancels; HOOI (`decomposeLayer`) at the same ranks reaches a slightly lower one.
 *
 * @param full factors of full rank d, h, 4 (`Hosvd.factors`)
 * @throws TuckerdError `invalid` for ranks above the dimensions.
 */
export function truncateHosvd(
  full: TuckerFactors,
  ranks: Ranks,
  where: LayerPlace,
): Pick<LayerDecomposition, "factors" | "relativeError" | "matrixErrors"> {
  const { ranks: [d, h, stack], u1, u2, u3, core } = full;
  const heads = core.length / (d * h * stack);
  checkRanks([d, h, stack, heads], ranks, where);
  const [r1, r2, r3] = ranks;
  const sliced = new Float32Array(r1 * r2 * r3 * heads);
  for (let a = 0; a < r1; a++) {
    for (let b = 0; b < r2; b++) {
      const from = (a * h + b) * stack * heads;
      sliced.set(core.subarray(from, from + r3 * heads), (a * r2 + b) * r3 * heads);
    }
  }
  const factors = {
    ranks,
    u1: columns(u1, d, r1),
    u2: columns(u2, h, r2),
    u3: columns(u3, stack, r3),
    core: sliced,
    matrixScales: full.matrixScales,
  };
  return { factors: { kind: "tucker4", factors }, ...truncationErrors(full, ranks) };
}

/**
 * Errors of the slice: u1 and u2 are orthogonal, so a matrix's squared distance is that of its slices of the core, mixed by u3, with
 * the kept corner taken out.
 */
function truncationErrors(
  { ranks: [d, h, stack], u3, core, matrixScales }: TuckerFactors,
  [r1, r2, r3]: Ranks,
): Pick<LayerDecomposition, "relativeError" | "matrixErrors"> {
  const heads = core.length / (d * h * stack);
  const [lost, whole] = [new Float64Array(stack), new Float64Array(stack)];
  for (let a = 0; a < d; a++) {
    for (let b = 0; b < h; b++) {
      const kept = a < r1 && b < r2 ? r3 : 0;
      const start = (a * h + b) * stack * heads;
      for (let s = 0; s < stack; s++) {
        for (let i = start; i < start + heads; i++) {
          let [rest, entry] = [0, 0];
          for (let k = 0; k < stack; k++) {
            const term = u3[s * stack + k]! * core[i + k * heads]!;
            entry += term;
            if (k >= kept) rest += term;
          }
          lost[s]! += rest * rest;
          whole[s]! += entry * entry;
        }
      }
    }
  }
  const ratio = (part: number, total: number): number => part === 0 ? 0 : Math.sqrt(part / total);
  const [q, k, v, o] = Array.from(lost, (part, s) => ratio(part, whole[s]!)) as [number, number, number, number];
  const scaled = (squares: Float64Array): number =>
    squares.reduce((total, square, s) => total + square * matrixScales[s]! ** 2, 0);
  return { relativeError: ratio(scaled(lost), scaled(whole)), matrixErrors: { q, k, v, o } };
}

interface Basis {
  /** Eigenvalues of the Gram matrix: squared singular values. */
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

async function basis(engine: TensorEngine, tensor: OpsTensor, mode: number): Promise<Basis> {
  return await symmetricEigen(await engine.gram(tensor, mode), tensor.shape[mode]!);
}

/** The core, in the tensor's own order of modes. */
async function project(engine: TensorEngine, tensor: OpsTensor, bases: readonly Basis[]): Promise<Float64Array> {
  let current = tensor;
  for (const mode of [STACK, HEAD_SIZE, HIDDEN]) {
    const length = tensor.shape[mode]!;
    using matrix = engine.upload(bases[mode]!.vectors, [length, length]);
    const next = engine.modeProduct(current, mode, matrix);
    if (current !== tensor) current[Symbol.dispose]();
    current = next;
  }
  const core = await engine.download(current);
  current[Symbol.dispose]();
  return core;
}

/** From d×S×H×h to d×h×S×H. */
function permuted(stored: Float64Array, shape: readonly number[]): Float64Array {
  const [d, stack, heads, h] = shape as [number, number, number, number];
  const result = new Float64Array(stored.length);
  const slices = stack * heads;
  for (let a = 0; a < d; a++) {
    for (let slice = 0; slice < slices; slice++) {
      for (let b = 0; b < h; b++) result[(a * h + b) * slices + slice] = stored[(a * slices + slice) * h + b]!;
    }
  }
  return result;
}

/** Squared norms over the heads, the last mode. */
function energiesByHead(core: Float64Array, heads: number): Float64Array {
  const energies = new Float64Array(core.length / heads);
  for (let i = 0; i < core.length; i++) energies[Math.floor(i / heads)]! += core[i]! ** 2;
  return energies;
}

function columns(matrix: Float32Array, rows: number, count: number): Float32Array {
  const width = matrix.length / rows;
  const result = new Float32Array(rows * count);
  for (let i = 0; i < rows; i++) result.set(matrix.subarray(i * width, i * width + count), i * count);
  return result;
}
