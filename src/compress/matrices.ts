/**
 * The matrices of a layer that mode `laser` can truncate, by name and by group.
 *
 * @module
 */
import {
  FEED_FORWARD_MATRICES,
  type FeedForwardBlock,
  type FeedForwardMatrix,
  type FeedForwardMatrixName,
  type FeedForwardPlace,
} from "../attention/feed_forward/types.ts";
import { type AttentionBlock, MATRICES, type MatrixName } from "../attention/types.ts";
import type { LaserName } from "../config.ts";

/** A matrix by name: of attention, or of a feed-forward network. */
export type LayerMatrixName = MatrixName | FeedForwardMatrixName;

/** One matrix of a layer. */
export interface LayerMatrix {
  readonly layer: number;
  /** Which network of the layer; 0 for a matrix of its attention. */
  readonly index: number;
  readonly matrix: LayerMatrixName;
  /**
   * As the file stores it: key and value of grouped-query attention with one head a group. Those have no more singular values
   * than that, though the decompositions see them repeated.
   */
  readonly shape: readonly [number, number];
}

/** The matrices that a name stands for: itself, or those of a group. */
export function matricesNamed(name: LaserName): readonly LayerMatrixName[] {
  switch (name) {
    case "attention":
      return MATRICES;
    case "ffn":
      return FEED_FORWARD_MATRICES;
    case "all":
      return [...MATRICES, ...FEED_FORWARD_MATRICES];
    default:
      return [name];
  }
}

/** Whether a matrix is one of attention. */
export function isAttentionMatrix(name: LayerMatrixName): name is MatrixName {
  return MATRICES.some((each) => each === name);
}

/** The four matrices of an attention block, then those of the feed-forward networks of its layer. */
export function matricesOf(block: AttentionBlock, feedForward: readonly FeedForwardBlock[]): readonly LayerMatrix[] {
  const { layer } = block;
  return [
    ...MATRICES.map((matrix) => ({ layer, index: 0, matrix, shape: storedShape(block, matrix) })),
    ...feedForward.filter((network) => network.layer === layer).flatMap(({ index, matrices }) =>
      matrices.map(({ name, rows, columns }) => ({ layer, index, matrix: name, shape: [rows, columns] as const }))
    ),
  ];
}

/** Sizes of an attention matrix as the file stores it. */
export function storedShape(
  { hiddenSize, heads, keyValueHeads, headSize }: AttentionBlock,
  name: MatrixName,
): readonly [number, number] {
  if (name === "output") return [heads * headSize, hiddenSize];
  return [hiddenSize, (name === "query" ? heads : keyValueHeads) * headSize];
}

/**
 * The sizes of a network's matrix.
 *
 * @throws RangeError if there is no such matrix.
 */
export function feedForwardMatrix(
  networks: readonly FeedForwardBlock[],
  { layer, index, matrix }: FeedForwardPlace,
): FeedForwardMatrix {
  const found = networks.find((network) => network.layer === layer && network.index === index)
    ?.matrices.find(({ name }) => name === matrix);
  if (found === undefined) throw new RangeError(`no matrix ${matrix} in network ${index} of layer ${layer}`);
  return found;
}
