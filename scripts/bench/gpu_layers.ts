/**
 * A generated layer: its upload, its decomposition with and without it, and a whole model of such layers.
 *
 * @module
 */
import { type AttentionWeights, type HalfMatrix, MATRICES, type MatrixName } from "../../src/attention/types.ts";
import { ahead } from "../../src/compress/ahead.ts";
import { decomposeLayer } from "../../src/tucker/decompose.ts";
import { engineFor } from "../../src/tucker/engine.ts";
import { hooi } from "../../src/tucker/hooi.ts";
import { WholeTensor } from "../../src/tucker/layer_tensor.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { randomArray } from "../../test/tucker/random.ts";
import type { ModelShape } from "./model_shape.ts";
import type { TimeMeasure } from "./gpu_report.ts";

/** A layer of float16 weights, as GPT-J's are. */
export interface GeneratedLayer {
  readonly weights: AttentionWeights;
  /** Its matrices as a file stores them. */
  readonly halves: (name: MatrixName) => HalfMatrix;
  /** Its d×4×H×h tensor, scaled to norm 1. */
  readonly tensor: Float32Array;
  /** What the weights were multiplied by. */
  readonly unit: number;
}

/**
 * Half of the layer's energy is a product of rank 64 with falling singular values, half noise, which is flatter than trained
 * attention. Entries are float16 numbers of mean square 0.02².
 */
export async function generateLayer({ hidden, heads, headSize }: ModelShape, cpu: TuckerOps): Promise<GeneratedLayer> {
  const [rank, behind] = [64, 4 * heads * headSize];
  const length = hidden * behind;
  const noise = randomArray(length, 1);
  const falling = randomArray(hidden * rank, 2).map((value, index) => value / (1 + index % rank));
  using left = cpu.tensor(falling, [hidden, rank]);
  using right = cpu.tensor(randomArray(rank * behind, 3), [rank, behind]);
  using product = cpu.matmul(left, right);
  const planted = await cpu.read(product);
  const rms = 0.02 * Math.SQRT1_2;
  const [plantedScale, noiseScale] = [rms * Math.sqrt(length) / norm(planted), rms * Math.sqrt(length) / norm(noise)];
  const mixed = planted.map((value, index) => value * plantedScale + noise[index]! * noiseScale);
  const numbers = new Float32Array(new Float16Array(mixed));
  const unit = 1 / norm(numbers);
  const weights = weightsOf({ hidden, heads, headSize }, numbers);
  return { weights, halves: halvesOf(weights), tensor: numbers.map((value) => value * unit), unit };
}

/** Each matrix in a stored tensor of its own. */
function halvesOf(weights: AttentionWeights): GeneratedLayer["halves"] {
  const matrices = MATRICES.map((name): [MatrixName, HalfMatrix] => {
    const columns = name === "output" ? weights.hiddenSize : weights.heads * weights.headSize;
    const rows = weights[name].length / columns;
    const bytes = new Uint8Array(new Float16Array(weights[name]).buffer);
    const source = { format: "float16", count: rows * columns, pieces: () => [bytes] } as const;
    const index = Int32Array.from({ length: columns }, (_, i) => i);
    return [name, { source, rows, columns, index, indexed: "columns", rowStride: columns, columnStride: 1 }];
  });
  const byName = new Map(matrices);
  return (name) => byName.get(name)!;
}

const norm = (numbers: Float32Array): number => Math.sqrt(numbers.reduce((sum, value) => sum + value * value, 0));

/** The weights that such a tensor (d×4×H×h) stands for. */
function weightsOf(
  { hidden, heads, headSize }: Pick<ModelShape, "hidden" | "heads" | "headSize">,
  tensor: Float32Array,
): AttentionWeights {
  const width = heads * headSize;
  const slice = (slot: number, index: (row: number, column: number) => number): Float32Array => {
    const matrix = new Float32Array(hidden * width);
    for (let row = 0; row < hidden; row++) {
      for (let column = 0; column < width; column++) {
        matrix[index(row, column)] = tensor[(row * 4 + slot) * width + column]!;
      }
    }
    return matrix;
  };
  const rows = (slot: number): Float32Array => slice(slot, (row, column) => row * width + column);
  const output = slice(3, (row, column) => column * hidden + row);
  return { hiddenSize: hidden, heads, headSize, query: rows(0), key: rows(1), value: rows(2), output };
}

interface LayerCase {
  readonly model: ModelShape;
  readonly layer: GeneratedLayer;
  readonly gpu: TuckerOps;
  readonly cpu: TuckerOps;
  readonly runs: number;
}

/** Uploads, decompositions of the layer at all ranks, and all layers with everything around. */
export async function benchLayers(given: LayerCase): Promise<TimeMeasure[]> {
  const times: TimeMeasure[] = [];
  for (const way of WAYS) times.push(await benchUpload(given, way));
  for (const ranks of given.model.ranks) times.push(...await benchDecomposition(given, ranks));
  for (const way of ["float32, stored as float16", "float16"] as const) times.push(await benchModel(given, way));
  return times;
}

/**
 * What crosses the bus, and how it is stored on the device: the tensor in float32; the same, rounded there to float16 numbers; or the matrices
 * in float16, as a file has them, of which the device makes the tensor.
 */
const WAYS = ["float32", "float32, stored as float16", "float16"] as const;
type Way = (typeof WAYS)[number];

async function upload(ops: TuckerOps, { model, layer }: LayerCase, way: Way): Promise<OpsTensor> {
  const shape = [model.hidden, 4, model.heads, model.headSize] as const;
  if (way === "float32" || ops.weights === undefined) return ops.tensor(layer.tensor, shape);
  if (way !== "float16") return await ops.weights(layer.tensor, shape, layer.unit);
  const output = layer.halves("output");
  const { rowStride, columnStride } = output;
  const turned = { ...output, indexed: "rows" as const, rowStride: columnStride, columnStride: rowStride };
  using halves = await ops.halves!([layer.halves("query"), layer.halves("key"), layer.halves("value"), turned]);
  const placed = [0, 1, 2, 3].map((matrix) => ({ matrix, factor: layer.unit }));
  return halves === undefined ? await ops.weights(layer.tensor, shape, layer.unit) : halves.tensor(placed, shape);
}

/** Upload of one layer until it is there, against a copy in host memory. */
async function benchUpload(given: LayerCase, way: Way): Promise<TimeMeasure> {
  const { layer, gpu, model, runs } = given;
  const seconds: number[] = [], baselineSeconds: number[] = [];
  let bytes = 0;
  for (let run = 0; run < runs; run++) {
    const before = gpu.uploadedBytes!;
    const start = performance.now();
    using _tensor = await upload(gpu, given, way);
    bytes = gpu.uploadedBytes! - before;
    using probe = gpu.tensor(new Float32Array(1), [1]);
    await gpu.read(probe);
    seconds.push((performance.now() - start) / 1000);
    const copy = performance.now();
    layer.tensor.slice();
    baselineSeconds.push((performance.now() - copy) / 1000);
  }
  return {
    name: `upload of a ${model.name} layer`,
    seconds,
    baseline: "a copy in host memory, float32",
    baselineSeconds,
    note: `${way}: ${mebibytes(bytes)} cross the bus`,
  };
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toPrecision(3)} MiB`;

/** HOOI of a layer's tensor to convergence. */
async function benchDecomposition(given: LayerCase, ranks: Ranks): Promise<TimeMeasure[]> {
  const { model, layer, gpu, cpu, runs } = given;
  let sweeps = 0;
  const decompose = async (ops: TuckerOps, way: Way, resident?: OpsTensor): Promise<number> => {
    const start = performance.now();
    const engine = engineFor(ops, layer.tensor.length);
    const tensor = resident ?? await upload(ops, given, way);
    ({ sweeps } = await hooi(engine, new WholeTensor(engine, tensor), { ranks }));
    if (resident === undefined) tensor[Symbol.dispose]();
    return (performance.now() - start) / 1000;
  };
  const onCpu = [await decomposeOnCpu(given, ranks)];
  const { hidden, heads, headSize } = model;
  const what = `${model.name} layer ${hidden}×${headSize}×4×${heads} at (${ranks})`;
  const times: TimeMeasure[] = [];
  for (const way of WAYS) {
    await decompose(gpu, way); // pipelines and buffers are warm after it
    const withUpload: number[] = [], without: number[] = [];
    for (let run = 0; run < runs; run++) withUpload.push(await decompose(gpu, way));
    using resident = await upload(gpu, given, way);
    for (let run = 0; run < runs; run++) without.push(await decompose(gpu, way, resident));
    const note = `${way}, ${sweeps} sweeps to convergence`;
    const against = { baseline: cpu.adapter, baselineSeconds: onCpu };
    times.push({ name: `${what}, with upload`, seconds: withUpload, ...against, note });
    if (way !== "float16") times.push({ name: `${what}, without upload`, seconds: without, ...against, note });
  }
  return times;
}

async function decomposeOnCpu({ model, layer, cpu }: LayerCase, ranks: Ranks): Promise<number> {
  const start = performance.now();
  const engine = engineFor(cpu, layer.tensor.length);
  using tensor = engine.upload(layer.tensor, [model.hidden, 4, model.heads, model.headSize]);
  await hooi(engine, new WholeTensor(engine, tensor), { ranks });
  return (performance.now() - start) / 1000;
}

/** Seconds from weights to factors with their errors, layer after layer as a job runs them. */
async function benchModel({ model, layer, gpu, cpu }: LayerCase, way: Way): Promise<TimeMeasure> {
  const ranks = model.ranks[0]!;
  const weights = way === "float16" ? { ...layer.weights, halves: layer.halves } : layer.weights;
  const all = async (ops: TuckerOps, layers: number): Promise<number> => {
    const start = performance.now();
    const decompose = (index: number, next: () => void): Promise<unknown> => {
      const where = { layer: index, name: "generated" };
      const onUploaded = ops.backend === "webgpu" ? next : undefined;
      const shared = { mode: "4d-tucker", layout: "heads", balance: false } as const;
      return decomposeLayer(weights, { ...shared, ranks, where, onUploaded }, ops);
    };
    for await (const _ of ahead([...Array(layers).keys()], decompose));
    return (performance.now() - start) / 1000;
  };
  const before = gpu.uploadedBytes!;
  const seconds = [await all(gpu, model.layers)];
  const bytes = (gpu.uploadedBytes! - before) / model.layers;
  return {
    name: `all ${model.layers} ${model.name} layers at (${ranks}), end to end`,
    seconds,
    baseline: cpu.adapter,
    baselineSeconds: [model.layers * await all(cpu, 1)],
    note:
      `${way}: ${
        mebibytes(bytes)
      } a layer cross the bus, the next layer's while one is computed; scaled, decomposed, ` +
      "errors measured in float64; the CPU's time is that of one layer",
  };
}
