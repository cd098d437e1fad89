/**
 * One attention block in plain float64, run densely and from folded factors: what `fold_test.ts` compares.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import type { AttentionBiases, AttentionWeights, BlockForm, FactorRole } from "../../src/attention/types.ts";
import type { FoldedTensor } from "../../src/tucker/mod.ts";

/** A rows×columns matrix in float64. */
export class Mat {
  constructor(readonly rows: number, readonly columns: number, readonly data = new Float64Array(rows * columns)) {}

  static of(data: ArrayLike<number>, columns: number): Mat {
    return new Mat(data.length / columns, columns, Float64Array.from(data));
  }

  at(i: number, j: number): number {
    return this.data[i * this.columns + j]!;
  }

  times(other: Mat): Mat {
    assertEquals(this.columns, other.rows);
    const result = new Mat(this.rows, other.columns);
    for (let i = 0; i < this.rows; i++) {
      for (let k = 0; k < this.columns; k++) {
        for (let j = 0; j < other.columns; j++) result.data[i * other.columns + j]! += this.at(i, k) * other.at(k, j);
      }
    }
    return result;
  }

  plus(row: ArrayLike<number> | undefined): Mat {
    return new Mat(this.rows, this.columns, this.data.map((value, i) => value + (row?.[i % this.columns] ?? 0)));
  }

  /** Columns of one head out of `heads`. */
  head(index: number, heads: number): Mat {
    const width = this.columns / heads;
    const result = new Mat(this.rows, width);
    for (let i = 0; i < this.rows; i++) {
      for (let j = 0; j < width; j++) result.data[i * width + j] = this.at(i, index * width + j);
    }
    return result;
  }

  get transposed(): Mat {
    const result = new Mat(this.columns, this.rows);
    for (let i = 0; i < this.rows; i++) {
      for (let j = 0; j < this.columns; j++) result.data[j * this.rows + i] = this.at(i, j);
    }
    return result;
  }
}

/** Contexts of all heads side by side; key and value may have fewer heads. A sink takes part of every row's probability. */
function attend(
  query: Mat,
  key: Mat,
  value: Mat,
  sizes: { heads: number; groups: number; scale: number; sink: boolean },
): Mat {
  const { heads, groups, scale, sink } = sizes;
  const parts = Array.from({ length: heads }, (_, i) => {
    const group = Math.floor(i / (heads / groups));
    const scores = query.head(i, heads).times(key.head(group, groups).transposed);
    for (let row = 0; row < scores.rows; row++) {
      const line = scores.data.subarray(row * scores.columns, (row + 1) * scores.columns);
      const top = Math.max(...line);
      line.forEach((score, j) => line[j] = Math.exp((score - top) * scale));
      const total = line.reduce((sum, weight) => sum + weight, sink ? 1 : 0);
      line.forEach((weight, j) => line[j] = weight / total);
    }
    return scores.times(value.head(group, groups));
  });
  const width = parts[0]!.columns;
  const result = new Mat(query.rows, heads * width);
  for (let i = 0; i < query.rows; i++) {
    parts.forEach((part, head) => {
      for (let j = 0; j < width; j++) result.data[i * heads * width + head * width + j] = part.at(i, j);
    });
  }
  return result;
}

/** The block with dense weights. */
export function runDense(x: Mat, weights: AttentionWeights, biases: AttentionBiases, sink = false): Mat {
  const { heads, headSize, hiddenSize } = weights;
  const [query, key, value] = (["query", "key", "value"] as const).map((name) =>
    x.times(Mat.of(weights[name], heads * headSize)).plus(biases[name])
  ) as [Mat, Mat, Mat];
  const contexts = attend(query, key, value, { heads, groups: heads, scale: 1 / Math.sqrt(headSize), sink });
  return contexts.times(Mat.of(weights.output, hiddenSize)).plus(biases.output);
}

/** Runs the folded tensors as the table in attention/types.ts describes. */
export function runFolded(
  x: Mat,
  { folded, form, biases, sizes, sink = false }: {
    folded: ReadonlyMap<string, FoldedTensor>;
    form: BlockForm;
    biases: AttentionBiases;
    sizes: AttentionWeights;
    sink?: boolean;
  },
): Mat {
  const { heads, headSize } = sizes;
  const tensor = (role: FactorRole): Mat | undefined => {
    const found = folded.get(`slot.${role}`);
    return found === undefined ? undefined : Mat.of(found.data, found.shape.at(-1)!);
  };
  const vector = (role: FactorRole): Float32Array | undefined => folded.get(`slot.${role}`)?.data;
  const projected = (name: "query" | "key" | "value", count: number): Mat => {
    const first = form[name] === "shared"
      ? x.times(tensor("down")!)
      : tensor(`${name}.a`)
      ? x.times(tensor(`${name}.a`)!)
      : x;
    const small = first.times(tensor(`${name}.b`)!);
    const expand = tensor(`${name}.expand`);
    const whole = expand === undefined ? small : eachHead(small, count, (part) => part.times(expand));
    const reduced = name === "value" ? form.valueOutput === "reduced" : form.queryKey === "reduced";
    if (!reduced) return whole.plus(groupedBias(biases[name], { heads, count, headSize }));
    return name === "key" ? whole : whole.plus(vector(`${name}.bias`));
  };
  const groups = form.keyValueHeads;
  const scale = 1 / Math.sqrt(headSize);
  let contexts = attend(projected("query", heads), projected("key", groups), projected("value", groups), {
    heads,
    groups,
    scale,
    sink,
  });
  const reduce = tensor("output.reduce");
  if (reduce !== undefined) contexts = eachHead(contexts, heads, (part) => part.times(reduce));
  const last = tensor("output.b") ?? tensor("up");
  const inner = contexts.times(tensor("output.a") ?? tensor("output.dense")!);
  const result = form.output === "dense" || last === undefined ? inner : inner.times(last);
  return result.plus(form.valueOutput === "reduced" ? vector("output.bias") : biases.output);
}

function eachHead(matrix: Mat, heads: number, change: (part: Mat) => Mat): Mat {
  const parts = Array.from({ length: heads }, (_, i) => change(matrix.head(i, heads)));
  const width = parts[0]!.columns;
  const result = new Mat(matrix.rows, heads * width);
  parts.forEach((part, head) => {
    for (let i = 0; i < matrix.rows; i++) {
      for (let j = 0; j < width; j++) result.data[i * heads * width + head * width + j] = part.at(i, j);
    }
  });
  return result;
}

/** The bias of the heads that run: of every group, its first head's. */
function groupedBias(
  bias: Float32Array | undefined,
  { heads, count, headSize }: { heads: number; count: number; headSize: number },
): Float32Array | undefined {
  if (bias === undefined || count === heads) return bias;
  return Float32Array.from({ length: count * headSize }, (_, i) => {
    const group = Math.floor(i / headSize);
    return bias[group * (heads / count) * headSize + i % headSize]!;
  });
}
