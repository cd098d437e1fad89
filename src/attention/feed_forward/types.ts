/**
 * The feed-forward network behind an attention block, whose matrices LASER (Sharma et al., arXiv 2312.13558) truncates.
 *
 * @module
 */
import type { FactorSlot } from "../types.ts";

/**
 * LASER's names: `fc_in` d→m and `fc_out` m→d. A gated network has two inputs: `fc_in` is the one whose result goes through the
 * activation (the gate), `fc_up` the one that it is multiplied by.
 */
export const FEED_FORWARD_MATRICES = ["fc_in", "fc_up", "fc_out"] as const;
/** One matrix of a feed-forward network. */
export type FeedForwardMatrixName = (typeof FEED_FORWARD_MATRICES)[number];

/** A matrix as it acts on row vectors (x @ W). */
export interface FeedForwardMatrix {
  readonly name: FeedForwardMatrixName;
  readonly rows: number;
  readonly columns: number;
}

/** One feed-forward network as found in a graph. */
export interface FeedForwardBlock {
  /** The attention layer before it in execution order. */
  readonly layer: number;
  /** Position among the networks of its layer, from 0: above 0 for mixtures of experts only. */
  readonly index: number;
  /** A readable name derived from the graph's node names, such as `bert.encoder.layer.0`. */
  readonly name: string;
  /** In the order of `FEED_FORWARD_MATRICES`; without `fc_up` where the network isn't gated. */
  readonly matrices: readonly FeedForwardMatrix[];
}

/** Names one matrix of a model. */
export interface FeedForwardPlace {
  readonly layer: number;
  readonly index: number;
  readonly matrix: FeedForwardMatrixName;
}

/** How a matrix runs: `pair` as m×r times r×n, `dense` as one matrix (a reconstruction). */
export type MatrixForm = "pair" | "dense";

/** A matrix with the form in which it shall run; matrices that aren't named keep the graph's own nodes. */
export interface FeedForwardForm extends FeedForwardPlace {
  readonly form: MatrixForm;
}

/** A tensor that a rewritten network takes: `a` rows × r and `b` r × columns of a pair, or `dense`. */
export interface FeedForwardSlot extends FeedForwardPlace, Pick<FactorSlot, "name" | "shape"> {
  readonly part: "a" | "b" | "dense";
}

/** A text that is equal for forms that give the same graph. */
export function feedForwardKey(forms: readonly FeedForwardForm[]): string {
  return forms.map(({ layer, index, matrix, form }) => `${layer}.${index}.${matrix}:${form}`).sort().join(";");
}
