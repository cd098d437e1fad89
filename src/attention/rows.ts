/**
 * In which order a stream's rows stand. A block in the small space runs on [batch, positions, …]; a graph may have its stream as
 * [batch, height, width, d] (pictures), as [positions, batch, d], as windows, or as rows without a batch.
 *
 * @module
 */
import { sizeOf } from "../onnx/tensor.ts";
import { stridedIndex, stridesOf } from "./trace/value.ts";

/** How the leading axes of a stream (all but the last) give its rows as [batch, positions]. */
export interface RowOrder {
  /** The leading axes in the order in which they count: first those that make the batch, then those of the positions. */
  readonly axes: readonly number[];
  /** How many of them make the batch. */
  readonly batchAxes: number;
}

/** The order of a stream [batch, positions, d]. */
export const PLAIN: RowOrder = { axes: [0, 1], batchAxes: 1 };

/** Streams with more leading axes are left: the orders to try are too many. */
const MOST_AXES = 6;

/** Whether a stream is [batch, positions, d] already. */
export function isPlain({ axes, batchAxes }: RowOrder): boolean {
  return axes.length === 2 && axes[0] === 0 && batchAxes === 1;
}

/**
 * The order in which the leading axes give rows as [batch, positions].
 *
 * @param sizes of the leading axes
 * @param of the row of every position, batch after batch, and the number of batches
 * @returns undefined where no order of the axes gives these rows.
 */
export function rowOrder(
  sizes: readonly number[],
  of: { readonly rows: ArrayLike<number>; readonly batch: number },
): RowOrder | undefined {
  if (sizes.length > MOST_AXES || sizeOf(sizes) !== of.rows.length) return undefined;
  const strides = stridesOf(sizes);
  for (const axes of orders(sizes.map((_, axis) => axis))) {
    const index = stridedIndex(axes.map((axis) => sizes[axis]!), axes.map((axis) => strides[axis]!));
    if (!index.every((row, i) => row === of.rows[i])) continue;
    const batchAxes = axesOf(axes.map((axis) => sizes[axis]!), of.batch);
    return batchAxes === undefined ? undefined : { axes, batchAxes };
  }
  return undefined;
}

/** How many of the first sizes make a batch: one at least, where that can be. */
function axesOf(sizes: readonly number[], batch: number): number | undefined {
  const counts = [...sizes.map((_, i) => i + 1), 0];
  return counts.find((count) => sizeOf(sizes.slice(0, count)) === batch);
}

/** All orders of some axes, the given one first. */
function* orders(axes: readonly number[]): Generator<readonly number[]> {
  if (axes.length < 2) yield axes;
  else for (const [i, axis] of axes.entries()) for (const rest of orders(axes.toSpliced(i, 1))) yield [axis, ...rest];
}
