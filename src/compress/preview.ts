/**
 * What a compression would cost and save, before anything is decomposed.
 *
 * @module
 */
import type { FeedForwardBlock } from "../attention/feed_forward/types.ts";
import { type AttentionBlock, MATRICES, type MatrixName } from "../attention/types.ts";
import { compressedParameters, layerParameters, lowRankSaves } from "../tucker/mod.ts";
import type { LayerMode, Ranks } from "../tucker/types.ts";
import type { FeedForwardReport, MatrixRanks } from "./artifact.ts";
import type { ChosenTasks, SpectrumSource } from "./choose.ts";
import { truncationError } from "./laser_ranks.ts";
import type { LayerTask, MatrixTask } from "./layer_task.ts";
import { feedForwardMatrix, type LayerMatrix, storedShape } from "./matrices.ts";
import { type LayerPlan, tensorShape } from "./plan.ts";
import type { LayerSpectrum } from "./spectrum_file.ts";

/** One layer of a preview. */
export interface LayerPreview {
  readonly layer: number;
  readonly name: string;
  readonly mode: LayerMode;
  /** Null where the layer's attention has none. */
  readonly ranks: Ranks | null;
  readonly matrixRanks?: MatrixRanks;
  readonly parameters: number;
  readonly compressedParameters: number;
  readonly compressionRatio: number;
  /** Tucker: of the truncated HOSVD, an upper bound that HOOI comes in under. Mode `laser`: the error itself. */
  readonly relativeError: number;
  readonly feedForward?: readonly FeedForwardReport[];
}

/** What a compression would cost and save. */
export interface CompressionPreview {
  readonly totals: {
    readonly attentionParameters: number;
    readonly compressedParameters: number;
    readonly compressionRatio: number;
  };
  readonly layers: readonly LayerPreview[];
}

/** What a preview is made from. */
export interface PreviewSources {
  readonly plans: readonly LayerPlan[];
  readonly tasks: ChosenTasks;
  readonly feedForward: readonly FeedForwardBlock[];
  /** By layer, of those that a Tucker mode decomposes. */
  readonly spectra: ReadonlyMap<number, LayerSpectrum>;
  readonly singularValues: SpectrumSource["matrices"];
}

/** Makes a preview. */
export async function previewOf(sources: PreviewSources): Promise<CompressionPreview> {
  const { plans, tasks } = sources;
  const layers: LayerPreview[] = [];
  for (const { block } of plans) {
    const task = tasks.layers.find(({ layer }) => layer === block.layer);
    const attention = task === undefined ? untouched(block) : await attentionPreview(block, task, sources);
    const feedForward: FeedForwardReport[] = [];
    for (const matrix of tasks.matrices.filter(({ layer }) => layer === block.layer)) {
      feedForward.push(await matrixPreview(matrix, sources));
    }
    const parameters = layerParameters(tensorShape(block));
    layers.push({
      layer: block.layer,
      name: block.name,
      parameters,
      compressionRatio: parameters / attention.compressedParameters,
      ...attention,
      ...(feedForward.length === 0 ? {} : {
        feedForward,
        mode: attention.mode === "4d-tucker" ? "4d-tucker-laser" : "laser",
      }),
    });
  }
  const attentionParameters = sum(layers.map((layer) => layer.parameters));
  const total = sum(layers.map((layer) => layer.compressedParameters));
  return {
    totals: { attentionParameters, compressedParameters: total, compressionRatio: attentionParameters / total },
    layers,
  };
}

type AttentionPreview = Pick<
  LayerPreview,
  "mode" | "ranks" | "matrixRanks" | "compressedParameters" | "relativeError"
>;

function untouched(block: AttentionBlock): AttentionPreview {
  return {
    mode: "none",
    ranks: null,
    compressedParameters: layerParameters(tensorShape(block)),
    relativeError: 0,
  };
}

async function attentionPreview(
  block: AttentionBlock,
  { mode, ranks, matrixRanks, matrices }: LayerTask,
  sources: PreviewSources,
): Promise<AttentionPreview> {
  const shape = tensorShape(block);
  if (ranks === undefined) return await truncatedPreview(block, matrixRanks ?? {}, sources);
  const { errors, modes } = sources.spectra.get(block.layer)!;
  if (mode === "4d-tucker") {
    const relativeError = errors.relativeError(ranks);
    return { mode, ranks, compressedParameters: compressedParameters(shape, ranks), relativeError };
  }
  const [r1, r2] = ranks;
  const [d, h, , heads] = shape;
  const count = matrices?.length ?? 4;
  const whole = (4 - count) * layerParameters(shape) / 4;
  return {
    mode,
    ranks: [r1, r2, 1],
    compressedParameters: count * (r1 * r2 * heads + d * r1 + h * r2) + whole,
    relativeError: modes!.tucker3.relativeError([r1, r2, 1]),
  };
}

/** Mode `laser` on attention: matrices are weighted by their norms, of which singular values tell. */
async function truncatedPreview(
  block: AttentionBlock,
  ranks: Partial<Record<MatrixName, number>>,
  { singularValues }: PreviewSources,
): Promise<AttentionPreview> {
  const all = MATRICES.map((matrix): LayerMatrix => ({
    layer: block.layer,
    index: 0,
    matrix,
    shape: storedShape(block, matrix),
  }));
  const values = await singularValues(all);
  const whole = layerParameters(tensorShape(block)) / 4;
  const width = block.hiddenSize + block.heads * block.headSize;
  let [lost, total, parameters] = [0, 0, 0];
  MATRICES.forEach((name, i) => {
    const rank = ranks[name];
    const norm2 = sum(Array.from(values[i]!, (value) => value * value));
    total += norm2;
    if (rank !== undefined) lost += truncationError(values[i]!, rank) ** 2 * norm2;
    parameters += rank !== undefined && lowRankSaves(all[i]!.shape, rank) ? rank * width : whole;
  });
  const rank = (name: MatrixName): number | null => ranks[name] ?? null;
  return {
    mode: "laser",
    ranks: null,
    matrixRanks: { q: rank("query"), k: rank("key"), v: rank("value"), o: rank("output") },
    compressedParameters: parameters,
    relativeError: lost === 0 ? 0 : Math.sqrt(lost / total),
  };
}

async function matrixPreview(task: MatrixTask, sources: PreviewSources): Promise<FeedForwardReport> {
  const { rows, columns } = feedForwardMatrix(sources.feedForward, task);
  const { layer, index, matrix, rank } = task;
  const shape = [rows, columns] as const;
  const [values] = await sources.singularValues([{ layer, index, matrix, shape }]);
  const saves = lowRankSaves(shape, rank);
  return {
    name: index === 0 ? matrix : `${index}.${matrix}`,
    rank,
    parameters: rows * columns,
    compressedParameters: saves ? rank * (rows + columns) : rows * columns,
    relativeError: truncationError(values!, rank),
    execution: saves ? "factored" : "dense",
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
