/**
 * The partial Tucker decomposition of one layer's tensor: a start, then HOOI sweeps (De Lathauwer et al. 2000). The head mode is never
 * touched.
 *
 * **Start.** Small tensors, and those that aren't truncated in all modes, start from the sequentially truncated HOSVD (Vannieuwenhoven
 * et al. 2012). For large ones the head-size mode's first factor comes from a sketch, the tensor projected on random directions of the
 * hidden mode, for a fraction of a sweep's time. (The stack mode's must be exact: from a sketch, sweeps of random tensors took longer and ended
 * at a higher error.)
 *
 * **Sweeps.** A sweep takes the hidden mode first and then the others, whose exact solution gives the energy kept for nothing. In large
 * tensors the hidden mode's factor isn't the optimum for the others, only better than before (`subspace.ts`), and the others' factors
 * are carried on in the direction in which the last sweep moved them (momentum), which halves the sweeps of tensors without structure. When
 * they stop: `convergence.ts`; the tolerances depend on the tensor's size (`engine.ts`).
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { symmetricEigen } from "../linalg/mod.ts";
import { Convergence } from "./convergence.ts";
import type { TensorEngine } from "./engine.ts";
import { HEAD_SIZE, HIDDEN, type LayerTensor, STACK } from "./layer_tensor.ts";
import { movedOn, sketchDirections } from "./momentum.ts";
import type { OpsTensor } from "./ops.ts";
import { canImprove, improvedFactor, leadingFactor, type ModeFactor } from "./subspace.ts";
import type { Ranks } from "./types.ts";

/** Sweeps after which a decomposition that still changes is given back as it is. */
const DEFAULT_SWEEPS = 200;

/** What to compute and when to stop. */
export interface HooiOptions {
  readonly ranks: Ranks;
  /** Largest number of sweeps; 200 by default. 0 gives the sequentially truncated HOSVD. */
  readonly sweeps?: number | undefined;
  /** Change of the relative error that may be left to gain. */
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
  /** The tensor projected by u1 and u2 alone, r1 × S × H × r2: what the errors of its matrices follow from. */
  readonly projected: Float64Array;
  readonly sweeps: number;
  readonly converged: boolean;
}

/** Must a tensor be stored as one (`LayerTensor.whole`) to be decomposed so? */
export function needsWhole([d, , , h]: LayerTensor["shape"], { ranks, sweeps }: HooiOptions): boolean {
  return sweeps === 0 || ranks[0] >= d || ranks[1] >= h;
}

/** A factor on the host and in the engine; undefined where the rank is the dimension and the factor is the identity. */
type Factor = { readonly matrix: Float64Array; readonly tensor: OpsTensor } | undefined;

/**
 * Decomposes a d×S×H×h tensor of norm 1.
 *
 * @throws TuckerdError `cancelled` when the signal is aborted.
 */
export async function hooi(engine: TensorEngine, tensor: LayerTensor, options: HooiOptions): Promise<HooiResult> {
  using run = new HooiRun(engine, tensor, options);
  return await run.decompose();
}

class HooiRun implements Disposable {
  readonly #factors: Factor[] = [];
  /** What the last sweep found for the stack and head-size modes, before momentum. */
  readonly #found: (Float64Array | undefined)[] = [];
  /** The tensor projected in the hidden mode by its factor. */
  #projected: OpsTensor | undefined;
  readonly #truncated: number;

  constructor(readonly engine: TensorEngine, readonly tensor: LayerTensor, readonly options: HooiOptions) {
    this.#truncated = [HIDDEN, STACK, HEAD_SIZE].filter((mode) => this.#isTruncated(mode)).length;
  }

  async decompose(): Promise<HooiResult> {
    const { roundoff } = this.engine;
    const convergence = new Convergence({ roundoff, tolerance: this.options.tolerance ?? this.engine.tolerance });
    const limit = this.options.sweeps ?? DEFAULT_SWEEPS;
    let converged = this.#truncated <= 1; // the start is the optimum
    await this.#start();
    await this.#updateHidden();
    let sweeps = 0;
    while (!converged && sweeps < limit) {
      if (sweeps > 0) {
        if (this.engine.large) await this.#moveOn(convergence.gain);
        await this.#updateHidden();
      }
      converged = convergence.add(await this.#updateOthers());
      sweeps++;
    }
    return { ...await this.#result(), sweeps, converged };
  }

  /** First factors of the stack and head-size modes. */
  async #start(): Promise<void> {
    if (this.#isTruncated(STACK)) {
      const gram = await this.tensor.stackGram();
      const { vectors } = await symmetricEigen(gram, this.#length(STACK), this.#rank(STACK));
      this.#setFactor(STACK, vectors);
    }
    if (!this.#isTruncated(HEAD_SIZE)) return;
    const sketched = this.engine.large && !needsWhole(this.tensor.shape, this.options);
    const start = sketched
      ? await this.tensor.project(HIDDEN, sketchDirections(this.#length(HIDDEN), this.#rank(HIDDEN)))
      : this.tensor.whole!;
    const stacked = this.#product(start, STACK);
    await this.#update(HEAD_SIZE, stacked);
    this.#drop(stacked, start);
    this.#drop(start);
  }

  /** The hidden mode's factor for the others as they are. */
  async #updateHidden(): Promise<void> {
    if (!this.#isTruncated(HIDDEN)) return;
    const both = await this.#projectSmall();
    this.#setFactor(HIDDEN, await this.#hiddenFactor(both));
    this.#drop(both);
  }

  async #hiddenFactor(both: OpsTensor): Promise<Float64Array> {
    const rank = this.#rank(HIDDEN);
    const sweepsFollow = this.#truncated > 1 && this.options.sweeps !== 0;
    if (!sweepsFollow || !canImprove(this.engine, both, rank)) {
      return (await leadingFactor(this.engine, both, { mode: HIDDEN, rank })).matrix;
    }
    const before = this.#factors[HIDDEN]?.matrix;
    if (before === undefined) return await improvedFactor(this.engine, both, { rank });
    const smaller = this.#product(this.#projected!, HEAD_SIZE);
    const image = this.#product(smaller, STACK);
    this.#drop(smaller, image);
    const factor = await improvedFactor(this.engine, both, { rank, before: { factor: before, image } });
    this.#drop(image, this.#projected);
    return factor;
  }

  /** The factors of the other modes, one after the other; gives the energy kept. */
  async #updateOthers(): Promise<number> {
    let energy = Number.NaN;
    const hidden = await this.#projectHidden();
    for (const [mode, other] of [[STACK, HEAD_SIZE], [HEAD_SIZE, STACK]] as const) {
      if (!this.#isTruncated(mode)) continue;
      const both = this.#product(hidden, other);
      energy = (await this.#update(mode, both))!.energy;
      this.#drop(both, hidden);
    }
    return energy;
  }

  /** Carries the other modes' factors on in the direction of their last move, unless that lost energy. */
  async #moveOn(gain: number): Promise<void> {
    for (const mode of [STACK, HEAD_SIZE]) {
      const found = this.#factors[mode]?.matrix;
      const before = this.#found[mode];
      this.#found[mode] = found;
      if (found === undefined || before === undefined || !(gain > 0)) continue;
      this.#setFactor(mode, await movedOn(found, before, this.#length(mode)));
    }
  }

  async #projectHidden(): Promise<OpsTensor> {
    this.#drop(this.#projected);
    return this.#projected = await this.#project(HIDDEN);
  }

  /** Sets a small mode's factor from a tensor that is projected in the other modes, if the mode is truncated. */
  async #update(mode: typeof STACK | typeof HEAD_SIZE, projected: OpsTensor): Promise<ModeFactor | undefined> {
    if (!this.#isTruncated(mode)) return undefined;
    const factor = await leadingFactor(this.engine, projected, { mode, rank: this.#rank(mode) });
    this.#setFactor(mode, factor.matrix);
    return factor;
  }

  #setFactor(mode: number, matrix: Float64Array): void {
    if (this.options.signal?.aborted) throw new TuckerdError("cancelled", "the decomposition was cancelled");
    this.#factors[mode]?.tensor[Symbol.dispose]();
    const tensor = this.engine.upload(matrix, [this.#length(mode), this.#rank(mode)]);
    this.#factors[mode] = { matrix, tensor };
  }

  /** The tensor projected by the factor of one of the large modes. */
  async #project(mode: typeof HIDDEN | typeof HEAD_SIZE): Promise<OpsTensor> {
    const factor = this.#factors[mode];
    return factor === undefined ? this.tensor.whole! : await this.tensor.project(mode, factor.matrix);
  }

  /** The tensor projected by the factors of the small modes. */
  async #projectSmall(): Promise<OpsTensor> {
    const [u2, u3] = [this.#factors[HEAD_SIZE]?.matrix, this.#factors[STACK]?.matrix];
    if (u2 !== undefined && u3 !== undefined) return await this.tensor.projectSmall({ u2, u3 });
    const once = await this.#project(HEAD_SIZE);
    const both = this.#product(once, STACK);
    this.#drop(once, both);
    return both;
  }

  /** tensor ×mode Uᵀ, or the tensor given where the factor is the identity. */
  #product(tensor: OpsTensor, mode: number): OpsTensor {
    const factor = this.#factors[mode];
    return factor === undefined ? tensor : this.engine.modeProduct(tensor, mode, factor.tensor);
  }

  async #result(): Promise<Omit<HooiResult, "sweeps" | "converged">> {
    const hidden = this.#projected ?? await this.#projectHidden();
    const both = this.#product(hidden, HEAD_SIZE);
    const projected = await this.engine.download(both);
    this.#drop(both, hidden);
    const [u1, u2, u3] = [this.#matrix(HIDDEN), this.#matrix(HEAD_SIZE), this.#matrix(STACK)];
    return { u1, u2, u3, core: this.#core(projected, u3), projected };
  }

  /** The core r1×r2×r3×H from the tensor projected in two modes, r1×S×H×r2, and the third one's factor. */
  #core(projected: Float64Array, u3: Float64Array): Float64Array {
    const [r1, r2, r3] = this.options.ranks;
    const [, stack, heads] = this.tensor.shape;
    const core = new Float64Array(r1 * r2 * r3 * heads);
    for (let a = 0; a < r1; a++) {
      for (let s = 0; s < stack; s++) {
        for (let i = 0; i < heads; i++) {
          const source = ((a * stack + s) * heads + i) * r2;
          for (let k = 0; k < r3; k++) {
            const weight = u3[s * r3 + k]!;
            const target = (a * r2 * r3 + k) * heads + i;
            for (let j = 0; j < r2; j++) core[target + j * r3 * heads]! += weight * projected[source + j]!;
          }
        }
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

  #isTruncated(mode: number): boolean {
    return this.#rank(mode) < this.#length(mode);
  }

  #length(mode: number): number {
    return this.tensor.shape[mode]!;
  }

  #rank(mode: number): number {
    const [r1, r2, r3] = this.options.ranks;
    return mode === HIDDEN ? r1 : mode === STACK ? r3 : r2;
  }

  /** Disposes a tensor unless it is the whole one, or another one under a new name. */
  #drop(tensor: OpsTensor | undefined, other?: OpsTensor): void {
    if (tensor !== this.tensor.whole && tensor !== other) tensor?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#drop(this.#projected);
    for (const factor of this.#factors) factor?.tensor[Symbol.dispose]();
  }
}
