/**
 * One place in a graph where attention is computed: what the families hand to the finder and the rewriter.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import type { NodeProto } from "../onnx/node.ts";
import type { CachedHeads, HeadView } from "./heads.ts";
import type { RowOrder } from "./rows.ts";
import type { Projection } from "./trace/projection.ts";

/** The output projection as the context reaches it. */
export interface OutputView {
  readonly projection: Projection;
  /** Row of the output matrix that position j of head i meets, at [i · headSize + j]. */
  readonly rows: Int32Array;
  /** The projection reads `scale · context`; 1 where the path isn't exact. */
  readonly scale: number;
  /** Why the path from context to projection does more than move and scale elements. */
  readonly inexact: string | undefined;
  /** How the projection's input gives its rows as [batch, positions]; absent where it doesn't, or where the path isn't exact. */
  readonly order?: RowOrder;
  /** Output bias, d numbers. */
  readonly bias: Float32Array | undefined;
  /** Name of the value that holds projection plus bias. */
  readonly result: string;
}

/** What a rewrite needs to know of a fused attention operator. */
export interface FusedOperator {
  readonly node: NodeProto;
  /** Biases that the operator adds to query, key and value itself; empty where it adds none. */
  readonly biases: readonly Float32Array[];
  readonly mask: string | undefined;
  readonly attentionBias: string | undefined;
  /** What the operator multiplies the scores by. */
  readonly scale: number;
  /** Whether it takes [batch, heads, positions, head size] instead of [batch, positions, heads · head size]. */
  readonly headsFirst: boolean;
  /** Whether its first operand holds query, key and value, heads of one behind those of the other. */
  readonly packed: boolean;
  /** Whether keys and values must have heads of one size. */
  readonly oneHeadSize: boolean;
  /**
   * Model inputs that it puts before the new keys and values, [B, G, positions, h]; twice the same where one input holds both,
   * [2, B, G, positions, h].
   */
  readonly past: { readonly key: string | undefined; readonly value: string | undefined };
}

/** One attention computation, found in one graph. */
export interface Site {
  readonly graph: Graph;
  /** The Softmax or the fused operator. */
  readonly anchor: NodeProto;
  readonly query: HeadView;
  readonly key: HeadView;
  readonly value: HeadView;
  readonly output: OutputView;
  /** Name of the product query · keyᵀ; what follows it stays. */
  readonly scores: string;
  /** Name of the softmax's result as the context product reads it. */
  readonly probabilities: string;
  /** Name of the context: probabilities · value. */
  readonly context: string;
  /** The operator, where attention is one; scores and probabilities then exist inside it only. */
  readonly fused?: FusedOperator;
  /** The model's outputs that hold keys and values for the next call, [B, G, positions, h]; undefined without a cache. */
  readonly present: { readonly key: string | undefined; readonly value: string | undefined };
  /** Why the operator can't be written as the plain ones that z needs; undefined if it can, or where there is none. */
  readonly operatorStaysBecause?: string | undefined;
  /** Why query and key can't run in the small space; undefined if they can. */
  readonly queryKeyExpandedBecause: string | undefined;
  /** Why value and output can't run in the small space; undefined if they can. */
  readonly valueOutputExpandedBecause: string | undefined;
  /** Rows of its probabilities may not sum to one, so that the value bias can't become a constant behind them. */
  readonly valueBiasInside?: true;
}

/** A site before it is known what may run in the small space. */
export type SiteParts = Omit<
  Site,
  "present" | "operatorStaysBecause" | "queryKeyExpandedBecause" | "valueOutputExpandedBecause" | "valueBiasInside"
>;

/** What the way through the softmax does to sums. */
export interface SoftmaxPath {
  /** An operator before the softmax that isn't indifferent to a constant per row. */
  readonly notAdditive: string | undefined;
  /** An operator behind the softmax after which rows may no longer sum to one. */
  readonly rowSumBroken: string | undefined;
}

/**
 * An attention that projects its query only: keys and values come from a cache that another branch or file fills, as those of
 * an encoder do in every call of a decoder but the first.
 */
export interface CacheReader extends Omit<SiteParts, "key" | "value"> {
  readonly key: CachedHeads;
  readonly value: CachedHeads;
  readonly path: SoftmaxPath;
  readonly operatorStaysBecause?: Site["operatorStaysBecause"];
}

/** A family's verdict on an anchor: a site, a site once it is known who fills its cache, or the reason why it is left alone. */
export type Verdict = { readonly site: Site } | { readonly reader: CacheReader } | { readonly reason: string };
