/**
 * A tiny float64 Tucker decomposition for tests of the rewriter: tensors [d, h, 4, H], and the factor tensors that each form
 * takes. Written from the formulas alone; shares no code with src.
 *
 * @module
 */
import type { AttentionBiases, AttentionWeights, FactorSlot } from "../../src/attention/types.ts";
import type { Numbers } from "./session.ts";

/** `W[a, b, s, i] = Σ core[p, q, r, i] · u1[a, p] · u2[b, q] · u3[s, r]`, columns orthonormal. */
export interface ReferenceTucker {
  readonly d: number;
  readonly h: number;
  readonly heads: number;
  readonly ranks: readonly [number, number, number];
  readonly u1: Float64Array;
  readonly u2: Float64Array;
  readonly u3: Float64Array;
  readonly core: Float64Array;
}

/** The tensor [d, h, 4, H] of a block's weights. */
export function stackWeights(weights: AttentionWeights): Float64Array {
  const { hiddenSize: d, headSize: h, heads } = weights;
  const tensor = new Float64Array(d * h * 4 * heads);
  for (let a = 0; a < d; a++) {
    for (let b = 0; b < h; b++) {
      for (let i = 0; i < heads; i++) {
        const column = a * heads * h + i * h + b;
        const at = ((a * h + b) * 4) * heads + i;
        tensor[at] = weights.query[column]!;
        tensor[at + heads] = weights.key[column]!;
        tensor[at + 2 * heads] = weights.value[column]!;
        tensor[at + 3 * heads] = weights.output[(i * h + b) * d + a]!;
      }
    }
  }
  return tensor;
}

/** The inverse of `stackWeights`. */
export function unstackWeights(
  tensor: ArrayLike<number>,
  { d, h, heads }: { readonly d: number; readonly h: number; readonly heads: number },
): AttentionWeights {
  const make = (): Float32Array => new Float32Array(d * h * heads);
  const [query, key, value, output] = [make(), make(), make(), make()];
  for (let a = 0; a < d; a++) {
    for (let b = 0; b < h; b++) {
      for (let i = 0; i < heads; i++) {
        const column = a * heads * h + i * h + b;
        const at = ((a * h + b) * 4) * heads + i;
        query[column] = tensor[at]!;
        key[column] = tensor[at + heads]!;
        value[column] = tensor[at + 2 * heads]!;
        output[(i * h + b) * d + a] = tensor[at + 3 * heads]!;
      }
    }
  }
  return { hiddenSize: d, heads, headSize: h, query, key, value, output };
}

/** Contracts mode `mode` of a tensor with the rows of an n × r matrix. */
export function modeProduct(
  tensor: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
  mode: number,
  matrix: { readonly columns: number; readonly data: ArrayLike<number> },
): { shape: number[]; data: Float64Array<ArrayBuffer> } {
  const { shape } = tensor;
  const outer = shape.slice(0, mode).reduce((a, b) => a * b, 1);
  const inner = shape.slice(mode + 1).reduce((a, b) => a * b, 1);
  const n = shape[mode]!;
  const r = matrix.columns;
  const data = new Float64Array(outer * r * inner);
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < n; k++) {
      for (let j = 0; j < r; j++) {
        const factor = matrix.data[k * r + j]!;
        for (let i = 0; i < inner; i++) {
          data[(o * r + j) * inner + i]! += factor * tensor.data[(o * n + k) * inner + i]!;
        }
      }
    }
  }
  return { shape: shape.with(mode, r), data };
}

/** Factors of a tensor in given orthonormal bases: its projection onto them. */
export function projectOnto(
  tensor: { readonly d: number; readonly h: number; readonly heads: number; readonly data: ArrayLike<number> },
  bases: { readonly u1: Float64Array; readonly u2: Float64Array; readonly u3: Float64Array },
): ReferenceTucker {
  const { d, h, heads } = tensor;
  const ranks = [bases.u1.length / d, bases.u2.length / h, bases.u3.length / 4] as const;
  const core = [bases.u1, bases.u2, bases.u3].reduce(
    (current, data, mode) => modeProduct(current, mode, { columns: ranks[mode]!, data }),
    { shape: [d, h, 4, heads], data: Float64Array.from(tensor.data) },
  ).data;
  return { d, h, heads, ranks, ...bases, core };
}

/** Factors at full ranks: the tensor itself between identities. */
export function identityTucker(weights: AttentionWeights): ReferenceTucker {
  const { hiddenSize: d, headSize: h, heads } = weights;
  const [u1, u2, u3] = [d, h, 4].map((n) =>
    Float64Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 1 : 0)
  ) as [Float64Array, Float64Array, Float64Array];
  return { d, h, heads, ranks: [d, h, 4], u1, u2, u3, core: stackWeights(weights) };
}

/** The dense tensor [d, h, 4, H] of factors. */
export function reconstruct({ d, h, heads, ranks, u1, u2, u3, core }: ReferenceTucker): Float64Array {
  const sizes = [d, h, 4];
  return [u1, u2, u3].reduce((current, basis, mode) => {
    const n = sizes[mode]!;
    const r = ranks[mode]!;
    const transposed = Float64Array.from({ length: n * r }, (_, i) => basis[(i % n) * r + Math.floor(i / n)]!);
    return modeProduct(current, mode, { columns: n, data: transposed });
  }, { shape: [...ranks, heads], data: core }).data;
}

/** An orthonormal basis (n × r) of the mode-`mode` columns of a tensor, by pivoted Gram-Schmidt. */
export function modeBasis(
  tensor: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
  mode: number,
  r: number,
): Float64Array {
  const n = tensor.shape[mode]!;
  const inner = tensor.shape.slice(mode + 1).reduce((a, b) => a * b, 1);
  const count = tensor.data.length / n;
  const columns = Array.from({ length: count }, (_, c) => {
    const start = Math.floor(c / inner) * n * inner + c % inner;
    return Float64Array.from({ length: n }, (_, k) => tensor.data[start + k * inner]!);
  });
  const basis = new Float64Array(n * r);
  for (let j = 0; j < r; j++) {
    const norms = columns.map((column) => column.reduce((sum, value) => sum + value * value, 0));
    const pivot = columns[norms.indexOf(Math.max(...norms))]!;
    const length = Math.sqrt(Math.max(...norms));
    const unit = pivot.map((value) => value / length);
    unit.forEach((value, k) => basis[k * r + j] = value);
    // Twice, for orthogonality in floating point.
    for (const column of [...columns, ...columns]) {
      const along = column.reduce((sum, value, k) => sum + value * unit[k]!, 0);
      for (let k = 0; k < n; k++) column[k]! -= along * unit[k]!;
    }
  }
  return basis;
}

/** Exact factors of a tensor whose multilinear ranks are at most `ranks`. */
export function factorsOf(
  tensor: { readonly d: number; readonly h: number; readonly heads: number; readonly data: ArrayLike<number> },
  ranks: readonly [number, number, number],
): ReferenceTucker {
  const shaped = { shape: [tensor.d, tensor.h, 4, tensor.heads], data: tensor.data };
  const [u1, u2, u3] = ranks.map((r, mode) => modeBasis(shaped, mode, r)) as [Float64Array, Float64Array, Float64Array];
  return projectOnto(tensor, { u1, u2, u3 });
}

/** The factor tensor that a slot takes for a block decomposed as `tucker4`. `groups`: key and value heads that run. */
export function tuckerFactor(
  slot: FactorSlot,
  tucker: ReferenceTucker,
  block: { readonly biases: AttentionBiases; readonly groups: number },
): Numbers {
  const { d, h, heads, ranks: [r1, r2], u1, u2 } = tucker;
  const { biases, groups } = block;
  /** C_s,i = Σ_k u3[s, k] core[:, :, k, i], as [r1, N·r2] for every (heads / N)-th head. */
  const combined = (s: number, n: number): Float64Array => {
    const r3 = tucker.ranks[2];
    const data = new Float64Array(r1 * n * r2);
    for (let p = 0; p < r1; p++) {
      for (let g = 0; g < n; g++) {
        for (let q = 0; q < r2; q++) {
          for (let k = 0; k < r3; k++) {
            const at = ((p * r2 + q) * r3 + k) * heads + g * (heads / n);
            data[p * n * r2 + g * r2 + q]! += tucker.u3[s * r3 + k]! * tucker.core[at]!;
          }
        }
      }
    }
    return data;
  };
  const transpose = (data: ArrayLike<number>, rows: number, columns: number): Float64Array =>
    Float64Array.from({ length: rows * columns }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
  switch (slot.role) {
    case "down":
      return { shape: [d, r1], data: u1 };
    case "up":
      return { shape: [r1, d], data: transpose(u1, d, r1) };
    case "query.b":
      return { shape: [r1, heads * r2], data: combined(0, heads) };
    case "key.b":
      return { shape: [r1, groups * r2], data: combined(1, groups) };
    case "value.b":
      return { shape: [r1, groups * r2], data: combined(2, groups) };
    case "output.a":
      return { shape: [heads * r2, r1], data: transpose(combined(3, heads), r1, heads * r2) };
    case "query.expand":
    case "key.expand":
    case "value.expand":
      return { shape: [r2, h], data: transpose(u2, h, r2) };
    case "output.reduce":
      return { shape: [h, r2], data: u2 };
    case "query.bias":
      return { shape: [heads * r2], data: reduceBias(biases.query!, tucker) };
    case "value.bias": {
      const all = reduceBias(biases.value!, tucker);
      const repeat = heads / groups;
      return { shape: [groups * r2], data: all.filter((_, i) => Math.floor(i / r2) % repeat === 0) };
    }
    case "output.bias":
      return { shape: [d], data: foldBias(tucker, biases) };
    default:
      throw new TypeError(`a 4-D Tucker block takes no factor ${slot.role}`);
  }
}

/** b_Q,i u2 for every head. */
function reduceBias(bias: Float32Array, { h, heads, ranks: [, r2], u2 }: ReferenceTucker): Float64Array {
  const reduced = new Float64Array(heads * r2);
  for (let i = 0; i < heads; i++) {
    for (let q = 0; q < r2; q++) {
      for (let b = 0; b < h; b++) reduced[i * r2 + q]! += bias[i * h + b]! * u2[b * r2 + q]!;
    }
  }
  return reduced;
}

/** b_O + Σ_i b_V,i Ŵ_O,i. */
function foldBias(tucker: ReferenceTucker, biases: AttentionBiases): Float64Array {
  const { d, h, heads } = tucker;
  const folded = Float64Array.from({ length: d }, (_, a) => biases.output?.[a] ?? 0);
  if (biases.value === undefined) return folded;
  const { output } = unstackWeights(reconstruct(tucker), { d, h, heads });
  for (let row = 0; row < heads * h; row++) {
    for (let a = 0; a < d; a++) folded[a]! += biases.value[row]! * output[row * d + a]!;
  }
  return folded;
}
