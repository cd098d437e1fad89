/**
 * What a compression produces: a report for people, and the graph with its factor tensors for the runtime.
 *
 * @module
 */
import type { Algorithm } from "../config.ts";
import type { Layout, Mode, Ranks } from "../tucker/types.ts";

/** A dense float32 tensor on the host, row-major. */
export interface FactorTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Errors of the four projections of a layer. */
export interface MatrixErrors {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly o: number;
}

/** Ranks of truncated matrices; null for one that was left as it is. */
export interface MatrixRanks {
  readonly q: number | null;
  readonly k: number | null;
  readonly v: number | null;
  readonly o: number | null;
}

/** One truncated matrix of a feed-forward network. */
export interface FeedForwardReport {
  /** `fc_in`, `fc_up` or `fc_out`, with `1.` and so on before it in the further networks of a layer. */
  readonly name: string;
  readonly rank: number;
  readonly parameters: number;
  /** Of the form that takes fewer numbers. */
  readonly compressedParameters: number;
  readonly relativeError: number;
  /** `factored` as two matrices; `dense` as one, where two would be larger or the whole model was asked for dense. */
  readonly execution: "factored" | "dense";
}

/** All feed-forward networks of a model together. */
export interface FeedForwardTotals {
  readonly parameters: number;
  readonly compressedParameters: number;
  readonly compressionRatio: number;
}

/** What a layer keeps as keys or as values: a tensor [batch, heads, positions, size]. */
export interface CachePart {
  /** `full`: the model's own numbers; `per-head`: r2 numbers per head; `latent`: z, from which those are made. */
  readonly kind: "full" | "per-head" | "latent";
  readonly heads: number;
  /** 0 where the other part holds everything. */
  readonly size: number;
  /** How many of those are coefficients of a rotation (cosines and sines), kept here for all layers that are rotated alike. */
  readonly rotation?: number;
}

/** What a decoder's layer keeps for later tokens, under the model's own names of keys and values. */
export interface CacheLayout {
  readonly key: CachePart;
  readonly value: CachePart;
}

/** One layer of the report (contract: "The report"). */
export interface LayerReport {
  /** The graph file, where the model is kept in several: each numbers its layers from 0. */
  readonly graph?: string;
  readonly layer: number;
  readonly name: string;
  readonly mode: Mode;
  /** r1, r2, r3; null where the layer's attention has none. */
  readonly ranks: Ranks | null;
  /** In mode `laser`, where the attention was truncated. */
  readonly matrixRanks?: MatrixRanks;
  readonly parameters: number;
  readonly compressedParameters: number;
  readonly compressionRatio: number;
  readonly relativeError: number;
  readonly matrixErrors: MatrixErrors;
  /** Matrices of its feed-forward networks that were truncated; absent where none was. */
  readonly feedForward?: readonly FeedForwardReport[];
  /** Absent where the graph has no key-value cache. */
  readonly cache?: CacheLayout;
  readonly seconds: number;
}

/** An attention operator that was left as it is. */
export interface SkippedReport {
  /** The graph file, where the model is kept in several. */
  readonly graph?: string;
  readonly node: string;
  readonly operator: string;
  readonly reason: string;
}

/** The report of one compression; `GET /v1/compression`, `tuckerd.json` and `--json` show it. */
export interface CompressionReport {
  readonly generation: number;
  readonly model: string;
  readonly architecture: string;
  readonly mode: Mode;
  /** How 4-D Tucker factors were found. */
  readonly algorithm: Algorithm;
  readonly layout: Layout;
  readonly execution: "factored" | "dense";
  readonly devices: {
    readonly tucker: { readonly backend: "webgpu" | "cpu" | "none"; readonly adapter: string };
    readonly inference: { readonly provider: string };
  };
  readonly totals: {
    readonly attentionParameters: number;
    readonly compressedParameters: number;
    readonly compressionRatio: number;
    readonly weightBytes: { readonly before: number; readonly after: number };
    readonly kvBytesPerToken: { readonly before: number; readonly after: number };
    /** Absent where no feed-forward network was found. The parameters above are those of attention only. */
    readonly feedForward?: FeedForwardTotals;
    readonly seconds: number;
  };
  readonly layers: readonly LayerReport[];
  readonly skipped: readonly SkippedReport[];
}

/** Where a graph's bytes are: in memory, or in a file (needed where it has external data). */
export type GraphSource = { readonly bytes: Uint8Array } | { readonly path: string };

/** One compressed model, ready to run. */
export interface CompressedModel {
  readonly report: CompressionReport;
  /** Key of the graph's structure: artifacts with equal keys differ in `feeds` only, and share one session. */
  readonly structure: string;
  readonly graph: GraphSource;
  /** Factor tensors by graph input name; empty where everything is an initializer. */
  readonly feeds: Readonly<Record<string, FactorTensor>>;
}
