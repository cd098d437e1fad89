/**
 * Takes the weights of a block out of the graph, in the layout of `AttentionWeights`.
 *
 * @module
 */
import type { OnnxModel } from "../onnx/model.ts";
import { release } from "../release.ts";
import { analyse, locatedBlock } from "./find.ts";
import { extractColumns, extractRows, HalfSources, outputScale } from "./matrices.ts";
import type { Site } from "./site.ts";
import type { AttentionBiases, AttentionBlock, AttentionWeights, HalfMatrix, MatrixName } from "./types.ts";

/** Weights and biases of one block. Disposing it gives the memory of the weights that were read back at once. */
export interface ExtractedWeights extends Disposable {
  /** Gives the memory of the weights that were read back at once; those that are asked for again are read again. */
  forget(): void;
  readonly weights: AttentionWeights;
  readonly biases: AttentionBiases;
}

/**
 * Weights and biases of a block that `findAttention` found in this model. Each matrix is read when it is first asked for, since
 * who needs the sizes and biases alone shouldn't pay for weights; the arrays are the caller's.
 *
 * @throws TuckerdError "bad-model" if a tensor can't be read; RangeError if the block isn't this model's.
 */
export function extractWeights(model: OnnxModel, block: AttentionBlock): ExtractedWeights {
  const { sites: [site], ...located } = locatedBlock(analyse(model), block.layer);
  const { hiddenSize, heads, headSize } = located;
  const read = {
    query: once(() => extractColumns(site.query, model.folder)),
    key: once(() => extractColumns(site.key, model.folder)),
    value: once(() => extractColumns(site.value, model.folder)),
    output: once(() => extractRows(site.output, model.folder)),
  };
  const sources = new HalfSources(model.folder);
  const halves = (name: MatrixName): HalfMatrix | undefined =>
    name === "output" ? sources.rows(site.output) : sources.columns(site[name]);
  const weights: AttentionWeights = {
    hiddenSize,
    heads,
    headSize,
    halves,
    get query() {
      return read.query();
    },
    get key() {
      return read.key();
    },
    get value() {
      return read.value();
    },
    get output() {
      return read.output();
    },
  };
  return {
    weights,
    biases: biasesOf(site, located.valueBiasInside === true),
    forget: () => {
      for (const matrix of Object.values(read)) matrix.forget();
    },
    [Symbol.dispose]: () => {
      for (const matrix of Object.values(read)) matrix.discard();
    },
  };
}

interface LazyMatrix {
  (): Float32Array;
  /** Releases the matrix if it was read. */
  forget(): void;
  /** The same, and it can't be read any more. */
  discard(): void;
}

function once(read: () => Float32Array): LazyMatrix {
  let value: Float32Array | undefined;
  let discarded = false;
  const get = (): Float32Array => {
    if (discarded) throw new TypeError("weights were read after they were disposed");
    return value ??= read();
  };
  const forget = (): void => {
    if (value !== undefined) release(value);
    value = undefined;
  };
  const discard = (): void => {
    discarded = true;
    forget();
  };
  return Object.assign(get, { forget, discard });
}

/** See `AttentionBiases`: the value's is given as it is added where it stays inside, else as it reaches the output projection. */
function biasesOf(site: Site, inside: boolean): AttentionBiases {
  const { query, key, value, output } = site;
  const scale = inside ? 1 : outputScale(site);
  return {
    ...(query.bias === undefined ? {} : { query: query.bias.slice() }),
    ...(key.bias === undefined ? {} : { key: key.bias.slice() }),
    ...(value.bias === undefined ? {} : { value: value.bias.map((number) => number * scale) }),
    ...(output.bias === undefined ? {} : { output: output.bias.slice() }),
  };
}
