/**
 * The partial Tucker decomposition of one layer's tensor: sequentially truncated HOSVD (Vannieuwenhoven et al. 2012), then
 * HOOI sweeps (De Lathauwer et al. 2000). The head mode is never touched.
 *
 * **When sweeps stop.** A sweep can only lower the error. With δ the change of the relative error ‖W − Ŵ‖/‖W‖ in one sweep, a
 * decomposition is converged when δ ≤ tolerance, or when the change is below rounding. Errors depend on the subspaces
 * quadratically, so δ = 1e-12 leaves the subspaces within about 1e-6 of their limit, δ = 1e-8 within about 1e-4. The defaults
 * depend on the tensor's size (`engine.ts`).
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { TensorEngine } from "./engine.ts";
import type { OpsTensor } from "./ops.ts";
import { leadingFactor, type ModeFactor } from "./subspace.ts";
import type { TensorSizes } from "./tensorise.ts";
import type { Ranks } from "./types.ts";

/** Modes of the stored tensor d×S×H×h. */
const HIDDEN = 0;
const STACK = 1;
const HEAD_SIZE = 3;

/** Sweeps after which a decomposition that still changes is given back as it is. */
const DEFAULT_SWEEPS = 200;

/** What to compute and when to stop. */
export interface HooiOptions {
  readonly ranks: Ranks;
  /** Largest number of sweeps; 200 by default. */
  readonly sweeps?: number | undefined;
  /** Change of the relative error in one sweep at which the sweeps stop. */
  readonly tolerance?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A partial Tucker decomposition in float64. */
export interface HooiResult {
  /** d × r1, h × r2, S × r3 with orthonormal columns. */
  readonly u1: Float64Array;
  readonly u2: Float64Array;
  readonly u3: Float64Array;
  /** r1 × r2 × r3 × H. */
  readonly core: Float64Array;
  readonly sweeps: number;
  readonly converged: boolean;
}

/** A factor on the host and in the engine; undefined where the rank is the dimension and the factor is the identity. */
type Factor = (ModeFactor & { readonly tensor: OpsTensor }) | undefined;

/**
 * Decomposes a d×S×H×h tensor of norm 1.
 *
 * @throws TuckerdError `cancelled` when the signal is aborted.
 */
export async function hooi(engine: TensorEngine, tensor: OpsTensor, options: HooiOptions): Promise<HooiResult> {
  using run = new HooiRun(engine, tensor, options);
  return await run.decompose();
}

class HooiRun implements Disposable {
  readonly #sizes: TensorSizes;
  readonly #factors: Factor[] = [];
  /** X ×stack U3 ×head-size U2: what the hidden mode's factor is computed from, and the core. */
  #reduced: OpsTensor | undefined;

  constructor(readonly engine: TensorEngine, readonly tensor: OpsTensor, readonly options: HooiOptions) {
    const [hidden, stack, heads, headSize] = tensor.shape as [number, number, number, number];
    this.#sizes = { hidden, stack, heads, headSize };
  }

  async decompose(): Promise<HooiResult> {
    let energy = await this.#start();
    let sweeps = 0;
    let converged = this.#truncated() <= 1; // one truncated mode: the HOSVD is the optimum
    while (!converged && sweeps < (this.options.sweeps ?? DEFAULT_SWEEPS)) {
      const before = energy;
      energy = await this.#sweep();
      sweeps++;
      converged = this.#isSmall(energy - before, energy);
    }
    return { ...await this.#result(), sweeps, converged };
  }

  /** Sequentially truncated HOSVD, smallest mode first; gives the energy kept. */
  async #start(): Promise<number> {
    await this.#update(STACK, this.tensor);
    const stacked = this.#product(this.tensor, STACK);
    await this.#update(HEAD_SIZE, stacked);
    this.#reduced = this.#product(stacked, HEAD_SIZE);
    if (stacked !== this.tensor && stacked !== this.#reduced) stacked[Symbol.dispose]();
    return await this.#update(HIDDEN, this.#reduced);
  }

  /** One HOOI sweep over the modes that are truncated; gives the energy kept. */
  async #sweep(): Promise<number> {
    const hidden = this.#product(this.tensor, HIDDEN);
    for (const [mode, other] of [[STACK, HEAD_SIZE], [HEAD_SIZE, STACK]] as const) {
      if (this.#rank(mode) === this.#length(mode)) continue;
      const projected = this.#product(hidden, other);
      await this.#update(mode, projected);
      if (projected !== hidden) projected[Symbol.dispose]();
    }
    if (hidden !== this.tensor) hidden[Symbol.dispose]();
    this.#replaceReduced();
    return await this.#update(HIDDEN, this.#reduced!);
  }

  /** Recomputes X ×stack U3 ×head-size U2, the mode first that shrinks more. */
  #replaceReduced(): void {
    this.#disposeReduced();
    const shrinks = (mode: number): number => this.#rank(mode) / this.#length(mode);
    const [first, second] = shrinks(STACK) < shrinks(HEAD_SIZE) ? [STACK, HEAD_SIZE] : [HEAD_SIZE, STACK];
    const once = this.#product(this.tensor, first);
    this.#reduced = this.#product(once, second);
    if (once !== this.tensor && once !== this.#reduced) once[Symbol.dispose]();
  }

  /** Sets a mode's factor from a tensor that is projected in the other modes; gives the energy that it keeps. */
  async #update(mode: number, projected: OpsTensor): Promise<number> {
    if (this.options.signal?.aborted) throw new TuckerdError("cancelled", "the decomposition was cancelled");
    const [rank, length] = [this.#rank(mode), this.#length(mode)];
    if (rank === length) return mode === HIDDEN ? await this.#energyOf(projected) : Number.NaN;
    const before = this.#factors[mode];
    const factor = await leadingFactor(this.engine, projected, { mode, rank });
    before?.tensor[Symbol.dispose]();
    this.#factors[mode] = { ...factor, tensor: this.engine.upload(factor.matrix, [length, rank]) };
    return factor.energy;
  }

  /** Squared norm, as the trace of the smallest Gram matrix. */
  async #energyOf(tensor: OpsTensor): Promise<number> {
    const length = tensor.shape[STACK]!;
    const gram = await this.engine.gram(tensor, STACK);
    let trace = 0;
    for (let i = 0; i < length; i++) trace += gram[i * length + i]!;
    return trace;
  }

  /** Is a change of energy that of a converged decomposition? The relative error is √(1 − energy). */
  #isSmall(change: number, energy: number): boolean {
    const { roundoff } = this.engine;
    const error = Math.sqrt(Math.max(0, 1 - energy));
    const tolerance = this.options.tolerance ?? this.engine.tolerance;
    return Math.abs(change) <= Math.max(2 * error * tolerance, roundoff);
  }

  /** tensor ×mode Uᵀ, or the tensor itself where the factor is the identity. */
  #product(tensor: OpsTensor, mode: number): OpsTensor {
    const factor = this.#factors[mode];
    return factor === undefined ? tensor : this.engine.modeProduct(tensor, mode, factor.tensor);
  }

  async #result(): Promise<Omit<HooiResult, "sweeps" | "converged">> {
    const core = this.#product(this.#reduced!, HIDDEN);
    const numbers = await this.engine.download(core);
    if (core !== this.#reduced) core[Symbol.dispose]();
    return {
      u1: this.#matrix(HIDDEN),
      u2: this.#matrix(HEAD_SIZE),
      u3: this.#matrix(STACK),
      core: this.#corePermuted(numbers),
    };
  }

  /** From the stored order r1×r3×H×r2 to the paper's r1×r2×r3×H. */
  #corePermuted(stored: Float64Array): Float64Array {
    const [r1, r2, r3] = this.options.ranks;
    const { heads } = this.#sizes;
    const core = new Float64Array(stored.length);
    for (let a = 0; a < r1; a++) {
      for (let k = 0; k < r3 * heads; k++) {
        for (let j = 0; j < r2; j++) core[(a * r2 + j) * r3 * heads + k] = stored[(a * r3 * heads + k) * r2 + j]!;
      }
    }
    return core;
  }

  #matrix(mode: number): Float64Array {
    const factor = this.#factors[mode];
    if (factor !== undefined) return factor.matrix;
    const length = this.#length(mode);
    return Float64Array.from({ length: length ** 2 }, (_, index) => index % (length + 1) === 0 ? 1 : 0);
  }

  #truncated(): number {
    return [HIDDEN, STACK, HEAD_SIZE].filter((mode) => this.#rank(mode) < this.#length(mode)).length;
  }

  #length(mode: number): number {
    return this.tensor.shape[mode]!;
  }

  #rank(mode: number): number {
    const [r1, r2, r3] = this.options.ranks;
    return mode === HIDDEN ? r1 : mode === STACK ? r3 : r2;
  }

  #disposeReduced(): void {
    if (this.#reduced !== this.tensor) this.#reduced?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#disposeReduced();
    for (const factor of this.#factors) factor?.tensor[Symbol.dispose]();
  }
}
