/**
 * From factors to the tensors that a rewritten graph takes (roles and shapes: `FactorRole` in attention/types.ts).
 *
 * Scores of a head are q kᵀ = q B (k B)ᵀ for any orthonormal basis B (h×ρ) whose span holds the keys, or the queries with
 * their bias; contexts pass through values and output alike. So attention runs in ρ numbers per head, exactly. What B is:
 * U2 where all matrices share it; for matrices decomposed alone the smaller of the two sides' subspaces (`score_space.ts`).
 * Everything is computed in float64 and rounded at the end.
 *
 * @module
 */
import {
  type AttentionBiases,
  type AttentionWeights,
  type BlockForm,
  type FactorRole,
  type FactorSlot,
  MATRICES,
  type MatrixName,
} from "../attention/types.ts";
import { type FloatArray, plainProduct, transposed } from "../linalg/mod.ts";
import { release } from "../release.ts";
import { type HeadSpace, headSpace, ownSpace, scoreSpace, valueSpace } from "./head_space.ts";
import { denseForm, type Projection, projectionsOf } from "./projection.ts";
import type { LayerFactors } from "./types.ts";

/** A tensor for a slot. */
export interface FoldedTensor {
  readonly shape: number[];
  readonly data: Float32Array;
}

/**
 * Computes the tensor of every slot.
 *
 * @param factors of one block, decomposed in layout `heads`
 * @param weights of the block, for the matrices that weren't decomposed
 * @param slots the block's slots
 * @returns tensors by the slots' names
 * @throws {RangeError} if a tensor comes out in another size than its slot fixes, or a slot doesn't fit the form.
 */
export function foldFactors(
  factors: LayerFactors,
  biases: AttentionBiases,
  weights: AttentionWeights,
  form: BlockForm,
  slots: readonly FactorSlot[],
): Map<string, FoldedTensor> {
  using fold = new BlockFold({ factors, biases, weights, form, roles: new Set(slots.map(({ role }) => role)) });
  return new Map(slots.map((slot) => [slot.name, checked(slot, fold.tensor(slot.role))]));
}

function checked(slot: FactorSlot, { shape, data }: Folded): FoldedTensor {
  const fits = slot.shape.length === shape.length &&
    slot.shape.every((size, axis) => typeof size === "string" || size === shape[axis]);
  if (!fits) {
    throw new RangeError(
      `factor ${slot.name} (${slot.role}) came out as [${shape}], but the graph takes [${slot.shape}]`,
    );
  }
  return { shape, data: new Float32Array(data) };
}

interface Folded {
  readonly shape: number[];
  readonly data: Float64Array | Float32Array;
}

interface Block {
  readonly factors: LayerFactors;
  readonly biases: AttentionBiases;
  readonly weights: AttentionWeights;
  readonly form: BlockForm;
  /** What the graph takes: where it has no `expand`, the expansion is multiplied into the factor before it. */
  readonly roles: ReadonlySet<FactorRole>;
}

class BlockFold implements Disposable {
  readonly #block: Block;
  /** What was computed in float64, for as long as the fold lasts: twice a layer's factors and more, which the collector leaves for long. */
  readonly #made = new Set<FloatArray>();
  readonly #projections = new Map<MatrixName, Projection>();
  readonly #spaces = new Map<MatrixName, HeadSpace>();

  constructor(block: Block) {
    this.#block = block;
    const { factors, weights, form } = block;
    for (const [name, projection] of Object.entries(projectionsOf(factors, weights)) as [MatrixName, Projection][]) {
      const chosen = form[name] === "dense" ? denseForm(projection) : projection;
      this.#projections.set(name, chosen);
      for (const { first, core, basis } of [projection, chosen]) {
        for (const array of [first, core, basis]) if (array !== undefined) this.#made.add(array);
      }
    }
    this.#chooseSpaces();
  }

  #chooseSpaces(): void {
    const { form, weights, biases, roles } = this.#block;
    const [query, key, value, output] = MATRICES.map((name) => this.#projection(name)) as [
      Projection,
      Projection,
      Projection,
      Projection,
    ];
    const groups = { heads: weights.heads, groups: form.keyValueHeads };
    const scores = form.queryKey === "reduced" ? scoreSpace(query, key, { bias: biases.query, ...groups }) : undefined;
    // A value's own bias needn't lie in the values' subspace; outside the outputs' it is never seen.
    const inside = roles.has("value.bias");
    const contexts = form.valueOutput !== "reduced" ? undefined : inside ? ownSpace(output) : valueSpace(value, output);
    const expanded = (name: MatrixName, role: FactorRole): HeadSpace =>
      roles.has(role) ? ownSpace(this.#projection(name)) : headSpace(weights.headSize);
    this.#spaces.set("query", scores ?? expanded("query", "query.expand"));
    this.#spaces.set("key", scores ?? expanded("key", "key.expand"));
    this.#spaces.set("value", contexts ?? expanded("value", "value.expand"));
    this.#spaces.set("output", contexts ?? expanded("output", "output.reduce"));
  }

  #projection(name: MatrixName): Projection {
    return this.#projections.get(name)!;
  }

  /** Gives back the memory of all that it computed, tensors included. */
  [Symbol.dispose](): void {
    release(...this.#made);
  }

  tensor(role: FactorRole): Folded {
    const folded = this.#tensor(role);
    this.#made.add(folded.data);
    return folded;
  }

  #tensor(role: FactorRole): Folded {
    switch (role) {
      case "down":
        return this.#first("query");
      case "up":
      case "output.b": {
        const { shape: [d, r], data } = this.#first("output") as { shape: [number, number]; data: Float64Array };
        return { shape: [r, d], data: transposed(data, d, r) };
      }
      case "output.a":
      case "output.dense": {
        const { shape: [inner, width], data } = this.#second("output") as {
          shape: [number, number];
          data: Float64Array;
        };
        return { shape: [width, inner], data: transposed(data, inner, width) };
      }
      case "output.reduce": {
        const { rank, basis } = this.#expansion("output");
        return { shape: [basis.length / rank, rank], data: basis };
      }
      case "query.bias":
      case "value.bias":
        return this.#bias(role === "query.bias" ? "query" : "value");
      case "output.bias":
        return this.#outputBias();
    }
    const [name, part] = role.split(".") as ["query" | "key" | "value", "a" | "b" | "expand"];
    if (part === "a") return this.#first(name);
    if (part === "b") return this.#second(name);
    const { rank, basis } = this.#expansion(name);
    const headSize = basis.length / rank;
    return { shape: [rank, headSize], data: transposed(basis, headSize, rank) };
  }

  /** U1 or another first factor, d × r. */
  #first(name: MatrixName): Folded {
    const { first, inner } = this.#projection(name);
    if (first === undefined) {
      throw new RangeError(`the ${name} matrix has no first factor in form ${this.#block.form[name]}`);
    }
    return { shape: [first.length / inner, inner], data: first };
  }

  /** C_i in the space of the head, side by side: inner × (N·ρ). */
  #second(name: MatrixName): Folded {
    const { heads } = this.#block.weights;
    const { inner, core, rank, basis } = this.#projection(name);
    const space = this.#spaces.get(name)!;
    const running = name === "key" || name === "value" ? this.#block.form.keyValueHeads : heads;
    const width = running * space.rank;
    const result = new Float64Array(inner * width);
    this.#made.add(result);
    for (let head = 0; head < running; head++) {
      const source = head * (heads / running); // repeats within a group are equal: the first stands for them
      const part = new Float64Array(inner * rank);
      for (let a = 0; a < inner; a++) {
        for (let j = 0; j < rank; j++) part[a * rank + j] = core[(a * heads + source) * rank + j]!;
      }
      const projected = space.project(part, { rows: inner, rank, basis, head: source });
      for (let a = 0; a < inner; a++) {
        result.set(projected.subarray(a * space.rank, (a + 1) * space.rank), a * width + head * space.rank);
      }
    }
    return { shape: [inner, width], data: result };
  }

  /** U2 of a projection that is expanded to its head size by the graph. */
  #expansion(name: MatrixName): { readonly rank: number; readonly basis: Float64Array } {
    const { rank, basis } = this.#projection(name);
    if (basis === undefined) throw new RangeError(`the ${name} matrix has no head-size factor to expand with`);
    return { rank, basis };
  }

  /** b_Q,i in the space of the scores, or b_V,i in that of the contexts, of every head that runs. */
  #bias(name: "query" | "value"): Folded {
    const { biases, form, weights: { heads, headSize } } = this.#block;
    const space = this.#spaces.get(name)!;
    const all = biases[name];
    const running = name === "query" ? heads : form.keyValueHeads;
    const result = new Float64Array(running * space.rank);
    for (let i = 0; i < running && all !== undefined; i++) {
      const head = i * (heads / running);
      const bias = Float64Array.from(all.subarray(head * headSize, (head + 1) * headSize));
      result.set(space.project(bias, { rows: 1, rank: headSize, basis: undefined, head }), i * space.rank);
    }
    return { shape: [result.length], data: result };
  }

  /** b_O + Σ_i b_V,i Ŵ_O,i where rows of the softmax sum to 1; where values carry their bias, b_O. */
  #outputBias(): Folded {
    const { biases, roles, weights: { hiddenSize, heads, headSize } } = this.#block;
    const { first, inner, core, rank, basis } = this.#projection("output");
    const mixed = new Float64Array(inner);
    const folded = roles.has("value.bias") ? undefined : biases.value;
    for (let head = 0; head < heads && folded !== undefined; head++) {
      const bias = Float64Array.from(folded.subarray(head * headSize, (head + 1) * headSize));
      const inside = basis === undefined ? bias : plainProduct(bias, basis, { m: 1, k: headSize, n: rank });
      for (let a = 0; a < inner; a++) {
        for (let j = 0; j < rank; j++) mixed[a]! += core[(a * heads + head) * rank + j]! * inside[j]!;
      }
    }
    const constant = first === undefined ? mixed : plainProduct(first, mixed, { m: hiddenSize, k: inner, n: 1 });
    return { shape: [hiddenSize], data: constant.map((value, index) => value + (biases.output?.[index] ?? 0)) };
  }
}
