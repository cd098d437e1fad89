/**
 * The Gram matrix of a layer's stack mode from the weights as they lie, in one pass: bound by memory. The norms of the matrices are its
 * diagonal.
 *
 * @module
 */
import type { AttentionWeights } from "../attention/types.ts";
import { addDots } from "../linalg/mod.ts";
import { isTransposed, type Tensorisation } from "./tensorise.ts";

/** Rows of the tensor that are looked at together: few enough that they stay in the cache. */
const STRIP_ROWS = 8;

/**
 * Dot products in float64 of all pairs of the tensor's slices W_s, before they are scaled: S × S.
 *
 * @param matrices the S slices
 */
export function stackDots(
  weights: AttentionWeights,
  { matrices, layout }: Pick<Tensorisation, "matrices" | "layout">,
): Float64Array {
  const { hiddenSize: hidden, heads, headSize } = weights;
  const width = heads * headSize;
  const dots = new Float64Array(matrices.length ** 2);
  const turned = matrices.map((name) => isTransposed(name, layout));
  const buffers = turned.map((each) => new Float32Array(each ? STRIP_ROWS * width : 0));
  for (let row = 0; row < hidden; row += STRIP_ROWS) {
    const rows = Math.min(STRIP_ROWS, hidden - row);
    const strip = matrices.map((name, slot) =>
      turned[slot]
        ? turnedRows(weights[name], { row, rows, width }, buffers[slot]!)
        : weights[name].subarray(row * width, (row + rows) * width)
    );
    addDots(dots, strip);
  }
  return dots;
}

interface Strip {
  readonly row: number;
  readonly rows: number;
  readonly width: number;
}

/** Some rows of the transpose of a matrix of `width` rows, copied into a buffer. */
function turnedRows(matrix: Float32Array, { row, rows, width }: Strip, buffer: Float32Array): Float32Array {
  const hidden = matrix.length / width;
  for (let i = 0; i < width; i++) {
    const start = i * hidden + row;
    for (let j = 0; j < rows; j++) buffer[j * width + i] = matrix[start + j]!;
  }
  return buffer.subarray(0, rows * width);
}
