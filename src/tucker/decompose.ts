/**
 * The decomposition of one layer in any mode, with its measured errors.
 *
 * @module
 */
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { engineFor, type TensorEngine } from "./engine.ts";
import { hooi, type HooiResult, needsWhole } from "./hooi.ts";
import { type LayerTensor, WholeTensor } from "./layer_tensor.ts";
import { type LayerWeights, placeWeights } from "./layer_weights.ts";
import { laserRank, truncatedSvd } from "./low_rank.ts";
import { normalisation, scaledNumbers } from "./normalise.ts";
import type { TuckerOps } from "./ops.ts";
import { projectedErrors } from "./projected_errors.ts";
import { checkRanks } from "./ranks.ts";
import { reconstructionErrors } from "./reconstruct.ts";
import { stackDots } from "./stack_dots.ts";
import { checkWeights, type LayerPlace, matrixNorms } from "./tensorise.ts";
import type {
  LayerDecomposition,
  LayerFactors,
  LayerMode,
  Layout,
  LowRankFactors,
  Ranks,
  Tucker3Factors,
} from "./types.ts";
import { WeightTensor } from "./weight_tensor.ts";

/** What one layer gets. */
export interface DecomposeOptions {
  /** In `4d-tucker-laser` the attention is decomposed as in `4d-tucker`; the FFN takes `truncatedSvd`. */
  readonly mode: LayerMode;
  readonly layout: Layout;
  /** Needed by the Tucker modes; `3d-tucker` uses r1 and r2. */
  readonly ranks?: Ranks | undefined;
  /** Rank of each matrix in mode `laser`; or `rate`, LASER's ρ, from which it follows. */
  readonly rank?: number | undefined;
  readonly rate?: number | undefined;
  /** Matrices that `3d-tucker` and `laser` decompose; all four by default. */
  readonly matrices?: readonly MatrixName[] | undefined;
  /** Scale Q, K, V and O to equal norm before the decomposition (4-D modes), and back after it. */
  readonly balance: boolean;
  /** Largest number of HOOI sweeps, and the change of the relative error that may be left; defaults in `hooi.ts` and `engine.ts`. */
  readonly sweeps?: number | undefined;
  readonly tolerance?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * Called when a 4-D decomposition has copied the weights and won't look at them again until it measures its errors: a caller that
   * can read them again may give their memory back. Large layers on the CPU aren't copied.
   */
  readonly onCopied?: (() => void) | undefined;
  /** Called when the tensor of a Tucker mode is where it is computed with; its copy on the host isn't needed any more. */
  readonly onUploaded?: (() => void) | undefined;
  /** For error texts. */
  readonly where: LayerPlace;
}

type Norms = Readonly<Record<MatrixName, number>>;
type KnownErrors = Partial<Record<MatrixName, number>>;

interface Computed extends Pick<LayerDecomposition, "factors" | "sweeps" | "converged"> {
  /** Errors that came with the factors. */
  readonly known: KnownErrors;
}

/**
 * Decomposes a layer.
 *
 * @throws TuckerdError `invalid` naming layer and matrix, rank or rule, for weights that aren't finite, ranks out of range
 * and missing ranks; `cancelled` when the signal is aborted.
 */
export async function decomposeLayer(
  weights: AttentionWeights,
  options: DecomposeOptions,
  ops: TuckerOps,
): Promise<LayerDecomposition> {
  const start = performance.now();
  const { layout, where } = options;
  checkWeights(weights, layout, where);
  const dots = needsDots(weights, options, ops) ? stackDots(weights, { matrices: MATRICES, layout }) : undefined;
  const { computed: { known, ...decomposed }, norms } = await placedAndComputed(weights, { ...options, dots }, ops);
  const errors = await reconstructionErrors(decomposed.factors, weights, { norms, layout, known });
  return { ...decomposed, ...errors, seconds: (performance.now() - start) / 1000 };
}

/** The decomposition and the norms that it needed, by weights that are on a device no longer than it takes. */
async function placedAndComputed(
  weights: AttentionWeights,
  options: DecomposeOptions & Pick<ComputeOptions, "dots">,
  ops: TuckerOps,
): Promise<{ readonly computed: Computed; readonly norms: Norms }> {
  const known = normsOf(options.dots) ??
    (options.mode.includes("tucker") ? undefined : matrixNorms(weights, options.where));
  const placing = placeWeights(weights, { ...options, norms: known }, ops);
  using placed = placing instanceof Promise ? await placing : placing;
  const { norms } = placed;
  return { computed: await compute(weights, { ...options, norms, placed }, ops), norms };
}

interface ComputeOptions extends DecomposeOptions {
  readonly norms: Norms;
  readonly placed: LayerWeights;
  /** Dot products of the matrices, where the norms were taken from them. */
  readonly dots?: Float64Array | undefined;
}

/** Will the weights be decomposed where they lie, beginning with the dot products of the matrices? Norms come with these. */
function needsDots(weights: AttentionWeights, { mode, ranks }: DecomposeOptions, ops: TuckerOps): boolean {
  const count = MATRICES.length * weights.hiddenSize * weights.heads * weights.headSize;
  return mode.startsWith("4d-tucker") && ranks !== undefined && ranks[2] < MATRICES.length && ops.backend === "cpu" &&
    engineFor(ops, count).large;
}

/** Norms by the dot products of the matrices with themselves; undefined where there are none, or a number isn't finite. */
function normsOf(dots: Float64Array | undefined): Norms | undefined {
  if (dots === undefined || !dots.every(Number.isFinite)) return undefined;
  const norms = MATRICES.map((name, slot) => [name, Math.sqrt(dots[slot * (MATRICES.length + 1)]!)] as const);
  return Object.fromEntries(norms) as Record<MatrixName, number>;
}

async function compute(weights: AttentionWeights, options: ComputeOptions, ops: TuckerOps): Promise<Computed> {
  switch (options.mode) {
    case "4d-tucker":
    case "4d-tucker-laser":
      return await tucker4(weights, options, ops);
    case "3d-tucker":
      return await tucker3(weights, options, ops);
    case "laser":
      return { factors: await laser(weights, options, ops), sweeps: 0, converged: true, known: {} };
    case "none":
      return { factors: { kind: "low-rank", matrices: {} }, sweeps: 0, converged: true, known: {} };
  }
}

async function tucker4(weights: AttentionWeights, options: ComputeOptions, ops: TuckerOps): Promise<Computed> {
  const ranks = requiredRanks(weights, options);
  const { norm, factors, matrixScales } = normalisation(options.norms, { ...options, matrices: MATRICES });
  const result = await partialTucker(weights, { ...options, ranks, matrices: MATRICES, factors }, ops);
  return {
    factors: {
      kind: "tucker4",
      factors: {
        ranks,
        u1: new Float32Array(result.u1),
        u2: new Float32Array(result.u2),
        u3: new Float32Array(result.u3),
        core: scaledNumbers(result.core, norm),
        matrixScales,
      },
    },
    sweeps: result.sweeps,
    converged: result.converged,
    known: result.known,
  };
}

async function tucker3(weights: AttentionWeights, options: ComputeOptions, ops: TuckerOps): Promise<Computed> {
  const [r1, r2] = requiredRanks(weights, options);
  const matrices: Partial<Record<MatrixName, Tucker3Factors>> = {};
  const known: KnownErrors = {};
  let sweeps = 0;
  let converged = true;
  for (const name of options.matrices ?? MATRICES) {
    const stack = { matrices: [name], balance: false };
    const { norm, factors } = normalisation(options.norms, stack);
    const result = await partialTucker(weights, { ...options, ...stack, ranks: [r1, r2, 1], factors }, ops);
    matrices[name] = {
      ranks: [r1, r2],
      u1: new Float32Array(result.u1),
      u2: new Float32Array(result.u2),
      core: scaledNumbers(result.core, norm),
    };
    Object.assign(known, result.known);
    sweeps = Math.max(sweeps, result.sweeps);
    converged &&= result.converged;
  }
  return { factors: { kind: "tucker3", matrices }, sweeps, converged, known };
}

async function laser(weights: AttentionWeights, options: ComputeOptions, ops: TuckerOps): Promise<LayerFactors> {
  const { where, signal } = options;
  const { hiddenSize, heads, headSize } = weights;
  const matrices: Partial<Record<MatrixName, LowRankFactors>> = {};
  for (const name of options.matrices ?? MATRICES) {
    if (signal?.aborted) throw new TuckerdError("cancelled", "the decomposition was cancelled");
    const width = heads * headSize;
    const shape = name === "output" ? [width, hiddenSize] as const : [hiddenSize, width] as const;
    const rank = options.rank ?? (options.rate === undefined ? undefined : laserRank(shape, options.rate));
    if (rank === undefined) {
      throw new TuckerdError("invalid", `layer ${where.layer} (${where.name}): mode "laser" needs a rank or a rate`);
    }
    const place = { ...where, matrix: name };
    matrices[name] = (await truncatedSvd({ data: weights[name], shape }, { rank, where: place }, ops)).factors;
  }
  return { kind: "low-rank", matrices };
}

function requiredRanks(
  { hiddenSize, headSize, heads }: AttentionWeights,
  { ranks, mode, where }: ComputeOptions,
): Ranks {
  if (ranks === undefined) {
    throw new TuckerdError("invalid", `layer ${where.layer} (${where.name}): mode "${mode}" needs ranks r1,r2,r3`);
  }
  checkRanks([hiddenSize, headSize, 4, heads], ranks, where);
  return ranks;
}

interface PartialTuckerOptions extends ComputeOptions {
  readonly ranks: Ranks;
  readonly matrices: readonly MatrixName[];
  /** What each matrix is multiplied by, so that the tensor has norm 1. */
  readonly factors: readonly number[];
}

async function partialTucker(
  weights: AttentionWeights,
  options: PartialTuckerOptions,
  ops: TuckerOps,
): Promise<HooiResult & { readonly known: KnownErrors }> {
  const { ranks, matrices, factors, norms } = options;
  const { hiddenSize, heads, headSize } = weights;
  const shape = [hiddenSize, matrices.length, heads, headSize] as const;
  const engine = engineFor(ops, shape.reduce((product, size) => product * size));
  const result = await decomposed({ engine, weights, shape }, options, ops);
  if (!engine.large) return { ...result, known: {} };
  const stack = matrices.map((name, slot) => ({ name, norm: norms[name] * factors[slot]! }));
  return { ...result, known: projectedErrors({ result, matrices: stack, rank: ranks[0] }) };
}

interface StackedWeights {
  readonly engine: TensorEngine;
  readonly weights: AttentionWeights;
  readonly shape: LayerTensor["shape"];
}

async function decomposed(
  { engine, weights, shape }: StackedWeights,
  options: PartialTuckerOptions,
  ops: TuckerOps,
): Promise<HooiResult> {
  if (ops.backend === "cpu" && engine.large && !needsWhole(shape, options) && WeightTensor.takes(options)) {
    return await hooi(engine, new WeightTensor(ops, weights, options), options);
  }
  using tensor = await options.placed.tensor(engine, options, shape);
  if (options.matrices.length === MATRICES.length) {
    options.placed[Symbol.dispose]();
    options.onCopied?.();
  }
  options.onUploaded?.();
  return await hooi(engine, new WholeTensor(engine, tensor), options);
}
