/**
 * The weights of a layer on their way into tensors: float32 numbers in host memory, or, where a GPU computes and a file stores 16-bit numbers,
 * those as they are stored, on the device. Norms and tensors come from either.
 *
 * @module
 */
import { type AttentionWeights, type HalfMatrix, MATRICES, type MatrixName } from "../attention/types.ts";
import type { TensorEngine } from "./engine.ts";
import type { LayerTensor } from "./layer_tensor.ts";
import { commonFactor } from "./normalise.ts";
import type { HalfWeights, OpsTensor, TuckerOps } from "./ops.ts";
import { isTransposed, type LayerPlace, matrixNorms, type Tensorisation, tensorise } from "./tensorise.ts";
import type { Layout } from "./types.ts";

/** Where weights are, for as long as tensors are made of them. Disposing it gives back what it took on a device. */
export interface LayerWeights extends Disposable {
  /** Frobenius norms of the projections. */
  readonly norms: Readonly<Record<MatrixName, number>>;
  /**
   * The d×S×H×h tensor of the chosen projections, where the engine computes. It must be in the layout that the weights were placed for.
   *
   * @param shape with S matrices
   */
  tensor(engine: TensorEngine, tensorisation: Tensorisation, shape: LayerTensor["shape"]): Promise<OpsTensor>;
}

/** What weights are taken for. */
export interface Placing {
  readonly layout: Layout;
  readonly where: LayerPlace;
  /** Norms, where they are known. */
  readonly norms?: LayerWeights["norms"] | undefined;
}

/**
 * Takes the weights to where tensors are made of them: at once where they stay on the host, since their upload would otherwise begin after a
 * device has been waited for that computes another layer.
 *
 * @throws TuckerdError `invalid` naming layer and matrix if an entry is NaN or infinite.
 */
export function placeWeights(
  weights: AttentionWeights,
  placing: Placing,
  ops: TuckerOps,
): LayerWeights | Promise<LayerWeights> {
  const halves = placing.norms === undefined ? halvesOf(weights, placing.layout) : undefined;
  const uploading = halves && ops.halves?.(halves);
  return uploading?.then((device) => deviceWeights(weights, device, placing)) ?? hostWeights(weights, placing);
}

function hostWeights(weights: AttentionWeights, { where, norms = matrixNorms(weights, where) }: Placing): LayerWeights {
  return {
    norms,
    tensor: (engine, tensorisation, shape) =>
      engine.uploadWeights(tensorise(weights, tensorisation, engine.Array), shape, commonFactor(tensorisation.factors)),
    [Symbol.dispose]: () => {},
  };
}

function deviceWeights(weights: AttentionWeights, device: HalfWeights, { where }: Placing): LayerWeights {
  try {
    const [query, key, value, output] = device.squares.map(Math.sqrt) as [number, number, number, number];
    // The host's pass over the numbers says which one isn't finite.
    const norms = device.squares.every(Number.isFinite) ? { query, key, value, output } : matrixNorms(weights, where);
    return {
      norms,
      tensor: (_engine, { matrices, factors }, shape) => {
        const placed = matrices.map((name, slot) => ({ matrix: MATRICES.indexOf(name), factor: factors[slot]! }));
        return Promise.resolve(device.tensor(placed, shape));
      },
      [Symbol.dispose]: () => device[Symbol.dispose](),
    };
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
}

/** All four matrices as they lie in the tensor, d × (H·h); undefined unless the file stores each of them in 16 bits. */
function halvesOf(weights: AttentionWeights, layout: Layout): readonly HalfMatrix[] | undefined {
  const halves = MATRICES.map((name) => {
    const matrix = weights.halves?.(name);
    return matrix !== undefined && isTransposed(name, layout) ? transposed(matrix) : matrix;
  });
  return halves.every((matrix) => matrix !== undefined) ? halves : undefined;
}

function transposed({ source, rows, columns, index, indexed, rowStride, columnStride }: HalfMatrix): HalfMatrix {
  return {
    source,
    index,
    rows: columns,
    columns: rows,
    indexed: indexed === "rows" ? "columns" : "rows",
    rowStride: columnStride,
    columnStride: rowStride,
  };
}
