/**
 * What the finder tells the rest of the program about an attention block, and how a rewritten block may run.
 * Names are the field's: d hidden size, H heads, h head size, r1, r2, r3 the Tucker ranks. Arrays are row-major.
 *
 * @module
 */
import type { HalfSource } from "../onnx/half_source.ts";

export type { HalfSource } from "../onnx/half_source.ts";

/** The four projections, in the order of the stack mode of the tensor. */
export const MATRICES = ["query", "key", "value", "output"] as const;
/** One of the four projections of an attention block. */
export type MatrixName = (typeof MATRICES)[number];

/**
 * The weights of one attention block as they act on row vectors (x @ W). Key and value heads of grouped-query attention
 * are repeated over their group, so all four have `heads` heads. Column block i of query, key and value (row block i of
 * output) belongs to head i.
 */
export interface AttentionWeights {
  /** d: width of the block's input and output. */
  readonly hiddenSize: number;
  /** H. */
  readonly heads: number;
  /** h. */
  readonly headSize: number;
  /** d × (H·h). */
  readonly query: Float32Array;
  /** d × (H·h). */
  readonly key: Float32Array;
  /** d × (H·h). */
  readonly value: Float32Array;
  /** (H·h) × d. */
  readonly output: Float32Array;
  /** A matrix as its file stores it, where that is in 16 bits; undefined where it isn't, or comes through arithmetic. */
  readonly halves?: (name: MatrixName) => HalfMatrix | undefined;
}

/** A matrix inside a stored tensor of 16-bit numbers, read when somebody asks for the tensor's pieces. */
export interface HalfMatrix {
  /** The same object for all matrices of a block that lie in it. */
  readonly source: HalfSource;
  readonly rows: number;
  readonly columns: number;
  /**
   * Number (i, j) of the matrix is number index[i]·rowStride + j·columnStride of the tensor where `indexed` is "rows", else
   * i·rowStride + index[j]·columnStride. One of the strides is 1.
   */
  readonly index: Int32Array;
  readonly indexed: "rows" | "columns";
  readonly rowStride: number;
  readonly columnStride: number;
}

/** The biases of one block, absent where the model has none; key and value repeated over groups like the weights. */
export interface AttentionBiases {
  /** H·h. */
  readonly query?: Float32Array;
  /** H·h. */
  readonly key?: Float32Array;
  /** H·h: as it reaches the output projection, with the scales that stand between; as it is added, where `valueBiasInside`. */
  readonly value?: Float32Array;
  /** d. */
  readonly output?: Float32Array;
}

/** One attention block as found in a graph: its sizes, and what may run in the small space. */
export interface AttentionBlock {
  /** Position in execution order, counted from 0; what `--layers` and `overrides` name. */
  readonly layer: number;
  /** A readable name derived from the graph's node names, such as `bert.encoder.layer.0.attention`. */
  readonly name: string;
  /** Which pattern family matched (one file each in this folder), such as `softmax`. */
  readonly family: string;
  readonly hiddenSize: number;
  readonly heads: number;
  /** Key and value heads as stored: fewer than `heads` in grouped-query attention. */
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Undefined if query and key may run in r2 numbers per head; otherwise the reason (rotary embedding, norm…). */
  readonly queryKeyExpandedBecause?: string;
  /** Undefined if value and output may run in r2 numbers per head; otherwise the reason. */
  readonly valueOutputExpandedBecause?: string;
  /** Rows of its probabilities may not sum to one: reduced values carry their bias, and are cached with it. */
  readonly valueBiasInside?: true;
  /** Each of its value heads is normed without a gain: values run reduced only where their subspace has an orthonormal basis. */
  readonly valueNormed?: true;
  /** Keys and values must have heads of one size: both run reduced, with the same r2, or neither does. */
  readonly oneHeadSize?: true;
  /** Numbers of cache that the block keeps per token as it is in the file; 0 where the graph takes and gives none. */
  readonly cacheNumbersPerToken: number;
  /** Bytes of a number in that cache. */
  readonly cacheNumberBytes: number;
  /** Undefined if the cache may hold the latent z in place of keys or values; otherwise the reason. */
  readonly noLatentCacheBecause?: string;
  /** How the graph rotates keys; undefined where that isn't known: then keys that run at full size can't be made from z. */
  readonly keyRotation?: RotationSizes;
  /** Why the rotation isn't known, where there is a cache that may hold z. */
  readonly noLatentKeysBecause?: string;
}

/** Numbers that a position's rotation takes besides what keys are projected from. */
export interface RotationSizes {
  readonly coefficients: number;
  /** Equal for blocks whose keys are rotated by the same coefficients; empty where there are none. */
  readonly group: string;
  /**
   * Heads are normed first: that can be done to keys from the shared subspace only, whose heads have r2 numbers, and all together only
   * where no head runs twice.
   */
  readonly normed?: "by head" | "together";
}

/** A softmax or fused attention operator that is left exactly as it is. */
export interface SkippedAttention {
  /** Name of the node (or its first output where it has none). */
  readonly node: string;
  /** Operator with domain, such as `Softmax` or `com.microsoft.Attention`. */
  readonly operator: string;
  /** What was expected and what was found instead. */
  readonly reason: string;
}

/** The projections whose results a decoder keeps for later tokens. */
export type CachedName = "key" | "value";

/** A softmax or fused attention operator of a graph, and what became of it. */
export interface AttentionOperator {
  /** Name of the node (or its first output where it has none). */
  readonly node: string;
  /** Operator with domain, such as `Softmax` or `com.microsoft.Attention`. */
  readonly operator: string;
  readonly verdict: "found" | "left";
  /** The block that it belongs to, where it was found. */
  readonly layer?: number;
  /** Why it was left, or why its block can't run in the small space throughout. */
  readonly reason?: string;
}

/**
 * How one projection runs:
 * `shared`  z = x @ U1 is computed once for each input of the block (cross attention has two), then z @ [r1, ·] (output: [·, r1] then U1ᵀ);
 * `pair`    two matrices of its own;
 * `dense`   one matrix of its own (a reconstruction, or an original weight folded into the small space);
 * `kept`    the graph's own nodes stay.
 */
export type ProjectionForm = "shared" | "pair" | "dense" | "kept";

/**
 * How one block runs in a rewritten graph. Two artifacts whose blocks have equal forms share one graph, whatever their
 * ranks: ranks are dynamic dimensions of the factor tensors.
 */
export interface BlockForm {
  readonly query: ProjectionForm;
  readonly key: ProjectionForm;
  readonly value: ProjectionForm;
  readonly output: ProjectionForm;
  /** `reduced`: scores are computed in r2 numbers per head; `expanded`: back to h before whatever follows. */
  readonly queryKey: "reduced" | "expanded";
  /** `reduced`: values and contexts hold r2 numbers per head. In either space, what is reduced is cached in r2 numbers. */
  readonly valueOutput: "reduced" | "expanded";
  /**
   * Heads of key and value as run: `keyValueHeads` where repeats stay equal, else `heads`; the cache then holds as many.
   */
  readonly keyValueHeads: number;
  /**
   * Whose cache holds the latent z (what stands before `key.b` or `value.b`, r1 or r numbers a token) instead of numbers per
   * head; those are expanded from it in every call. Only what comes from two factors can, and runs reduced or is a key whose
   * rotation is known; absent: neither.
   */
  readonly latent?: readonly CachedName[];
}

/**
 * What a factor tensor holds. With ρ = r2 in the reduced space and in `shared` projections, else h; G the key/value heads that run, and N = H or G:
 *
 * | role | shape | holds |
 * | --- | --- | --- |
 * | `down` | d × r1 | U1, shared by the block |
 * | `up` | r1 × d | U1ᵀ, shared by the block |
 * | `query.a`, `key.a`, `value.a` | d × r | first matrix of a `pair` |
 * | `query.b`, `key.b`, `value.b` | (r1, r or d) × (N·ρ) | second matrix of a pair, the core's part of `shared`, or all of `dense` |
 * | `output.a` | (H·ρ) × (r1 or r) | first matrix |
 * | `output.b` | r × d | second matrix of a `pair` |
 * | `output.dense` | (H·ρ) × d | all of `dense` |
 * | `query.expand`, `key.expand`, `value.expand` | r2 × h | U2ᵀ, where the space is expanded and the form `shared` |
 * | `output.reduce` | h × r2 | U2, where value and output are expanded and the form `shared` |
 * | `query.bias` | H·ρ | b_Q,i U2 (reduced only; an expanded block keeps the graph's own bias nodes) |
 * | `value.bias` | G·ρ | b_V,i in the space of the output (reduced only, where rows of the softmax may not sum to one) |
 * | `output.bias` | d | b_O + Σ_i b_V,i Ŵ_O,i (reduced only); b_O alone beside `value.bias` |
 */
export type FactorRole =
  | "down"
  | "up"
  | `${"query" | "key" | "value"}.${"a" | "b" | "expand"}`
  | "output.a"
  | "output.b"
  | "output.dense"
  | "output.reduce"
  | "query.bias"
  | "value.bias"
  | "output.bias";

/** One factor tensor that a rewritten graph takes, as a graph input or as an initializer. */
export interface FactorSlot {
  readonly layer: number;
  readonly role: FactorRole;
  /** Name of the tensor in the graph. */
  readonly name: string;
  /** Fixed sizes as numbers, ranks as symbolic names. */
  readonly shape: readonly (number | string)[];
}
