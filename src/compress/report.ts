/**
 * The report of a compression (contract: "The report"): what was asked, what it cost, what it saved, what really ran.
 *
 * @module
 */
import type { FeedForwardBlock } from "../attention/feed_forward/types.ts";
import type { FoundAttention } from "../attention/mod.ts";
import type { AttentionBlock, MatrixName } from "../attention/types.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { layerParameters, lowRankSaves } from "../tucker/mod.ts";
import type { LayerFactors, LayerMode, LowRankFactors, Ranks } from "../tucker/types.ts";
import type {
  CacheLayout,
  CompressionReport,
  FactorTensor,
  FeedForwardReport,
  FeedForwardTotals,
  LayerReport,
  MatrixRanks,
} from "./artifact.ts";
import { cacheNumbers, fullCache } from "./cache_layout.ts";
import type { CompressedLayer, CompressedMatrix, Decomposed } from "./decomposed.ts";
import type { WrittenGraph } from "./graphs.ts";
import { storedShape } from "./matrices.ts";
import type { ModelFolder } from "./model_folder.ts";
import type { CompressionOptions } from "./options.ts";
import type { UsedOps } from "./ops_source.ts";
import { tensorShape } from "./plan.ts";
import type { Sketch } from "./sketch.ts";
import { weightBytes } from "./weight_files.ts";

/** What a report is made from. */
export interface ReportSources {
  readonly folder: ModelFolder;
  readonly found: FoundAttention;
  readonly feedForward: readonly FeedForwardBlock[];
  readonly options: CompressionOptions;
  readonly decomposed: Decomposed;
  readonly execution: "factored" | "dense";
  readonly original: OnnxModel;
  /** The graph that runs, with the factors that it is fed. */
  readonly written: WrittenGraph;
  readonly feeds: Readonly<Record<string, FactorTensor>>;
  /** Time of the whole compression. */
  readonly seconds: number;
}

/** Makes the report. Generation and inference provider are filled in by whoever runs the result. */
export function makeReport(sources: ReportSources): CompressionReport {
  const { folder, found, options, execution, decomposed, written } = sources;
  const decomposedLayers = new Map(decomposed.layers.map((layer) => [layer.block.layer, layer]));
  const layers = found.blocks.map((block) => {
    const matrices = decomposed.matrices.filter(({ task }) => task.layer === block.layer);
    const cache = written.caches.get(block.layer);
    return layerReport(block, decomposedLayers.get(block.layer), { matrices, execution, cache });
  });
  const attentionParameters = sum(layers.map((layer) => layer.parameters));
  const compressedParameters = sum(layers.map((layer) => layer.compressedParameters));
  const feedBytes = sum(Object.values(sources.feeds).map((feed) => feed.data.byteLength));
  return {
    generation: 0,
    model: folder.id,
    architecture: folder.architecture,
    mode: options.mode,
    algorithm: options.algorithm,
    layout: options.layout,
    execution,
    devices: { tucker: tuckerDevice(decomposed), inference: { provider: "none" } },
    totals: {
      attentionParameters,
      compressedParameters,
      compressionRatio: attentionParameters / compressedParameters,
      weightBytes: { before: weightBytes(sources.original), after: weightBytes(written.model) + feedBytes },
      kvBytesPerToken: {
        before: sum(found.blocks.map((block) => block.cacheNumberBytes * block.cacheNumbersPerToken)),
        after: sum(found.blocks.map((block) => {
          const cache = written.caches.get(block.layer);
          return block.cacheNumberBytes * (cache === undefined ? block.cacheNumbersPerToken : cacheNumbers(cache));
        })),
      },
      ...feedForwardTotals(sources.feedForward, layers),
      seconds: sources.seconds,
    },
    layers,
    skipped: found.skipped,
  };
}

function layerReport(
  block: AttentionBlock,
  compressed: CompressedLayer | undefined,
  { matrices, execution, cache }: {
    readonly matrices: readonly CompressedMatrix[];
    readonly execution: "factored" | "dense";
    readonly cache: CacheLayout | undefined;
  },
): LayerReport {
  const parameters = layerParameters(tensorShape(block));
  const feedForward = matrices.map((matrix) => feedForwardReport(matrix, execution));
  const { factors, relativeError, matrixErrors, seconds } = compressed?.stored.decomposition ?? untouched;
  const compressedParameters = factors === undefined ? parameters : factorParameters(factors, block);
  return {
    layer: block.layer,
    name: block.name,
    mode: modeOf(compressed, feedForward.length > 0),
    ranks: factors === undefined ? null : ranksOf(factors),
    ...(factors?.kind === "low-rank" ? { matrixRanks: matrixRanksOf(factors.matrices) } : {}),
    parameters,
    compressedParameters,
    compressionRatio: parameters / compressedParameters,
    relativeError,
    matrixErrors,
    ...(feedForward.length === 0 ? {} : { feedForward }),
    ...(block.cacheNumbersPerToken === 0 ? {} : { cache: cache ?? fullCache(block, block.keyValueHeads) }),
    seconds: seconds + sum(matrices.map(({ stored }) => stored.seconds)),
  };
}

/** What stands for the decomposition of an attention that is as it was. */
const untouched = {
  factors: undefined,
  relativeError: 0,
  matrixErrors: { q: 0, k: 0, v: 0, o: 0 },
  seconds: 0,
} as const;

/** What was done to a layer: to its attention, and to its feed-forward network. */
function modeOf(compressed: CompressedLayer | undefined, network: boolean): LayerMode {
  const mode = compressed?.task.mode ?? "none";
  if (!network) return mode;
  return mode === "4d-tucker" ? "4d-tucker-laser" : "laser";
}

function feedForwardReport(
  { task, shape: [m, n], stored, execution }: CompressedMatrix,
  wanted: "factored" | "dense",
): FeedForwardReport {
  const { rank } = stored.factors;
  return {
    name: task.index === 0 ? task.matrix : `${task.index}.${task.matrix}`,
    rank,
    parameters: m * n,
    compressedParameters: execution === "factored" ? rank * (m + n) : m * n,
    relativeError: stored.relativeError,
    execution: wanted === "dense" ? "dense" : execution,
  };
}

/** All feed-forward networks of the model together; nothing where it has none. */
function feedForwardTotals(
  networks: readonly FeedForwardBlock[],
  layers: readonly LayerReport[],
): { readonly feedForward?: FeedForwardTotals } {
  if (networks.length === 0) return {};
  const parameters = sum(networks.flatMap(({ matrices }) => matrices.map(({ rows, columns }) => rows * columns)));
  const saved = sum(
    layers.flatMap(({ feedForward = [] }) =>
      feedForward.map((matrix) => matrix.parameters - matrix.compressedParameters)
    ),
  );
  const compressedParameters = parameters - saved;
  return { feedForward: { parameters, compressedParameters, compressionRatio: parameters / compressedParameters } };
}

/** Numbers in the factors, and in the matrices that stay whole or run as one, since two would be larger. */
function factorParameters(factors: Sketch<LayerFactors>, block: AttentionBlock): number {
  if (factors.kind === "tucker4") {
    const { u1, u2, u3, core } = factors.factors;
    return u1.length + u2.length + u3.length + core.length;
  }
  const matrixParameters = layerParameters(tensorShape(block)) / 4;
  const compressed = factors.kind === "tucker3"
    ? Object.values(factors.matrices).map(({ u1, u2, core }) => u1.length + u2.length + core.length)
    : (Object.entries(factors.matrices) as [MatrixName, Sketch<LowRankFactors>][]).map((
      [name, { left, right, rank }],
    ) => lowRankSaves(storedShape(block, name), rank) ? left.length + right.length : matrixParameters);
  return sum(compressed) + (4 - compressed.length) * matrixParameters;
}

function matrixRanksOf(matrices: Sketch<Partial<Record<MatrixName, LowRankFactors>>>): MatrixRanks {
  const rank = (name: MatrixName): number | null => matrices[name]?.rank ?? null;
  return { q: rank("query"), k: rank("key"), v: rank("value"), o: rank("output") };
}

function ranksOf(factors: Sketch<LayerFactors>): Ranks | null {
  if (factors.kind === "tucker4") return factors.factors.ranks;
  if (factors.kind === "low-rank") return null;
  const first = Object.values(factors.matrices)[0];
  return first === undefined ? null : [first.ranks[0], first.ranks[1], 1];
}

/**
 * What decomposed. A job uses one device, unless that failed on the way or some results were there from before: then all are named, with
 * the number of results that each gave, and the backend is that of the last.
 */
export function tuckerDevice(
  { layers, matrices }: { readonly [K in keyof Decomposed]: readonly { readonly stored: UsedOps }[] },
): CompressionReport["devices"]["tucker"] {
  const results = [...layers, ...matrices].map(({ stored }) => stored);
  const last = results.at(-1);
  if (last === undefined) return { backend: "none", adapter: "nothing was decomposed" };
  const counts = new Map<string, number>();
  for (const { adapter } of results) counts.set(adapter, (counts.get(adapter) ?? 0) + 1);
  const adapter = counts.size === 1
    ? last.adapter
    : [...counts].map(([adapter, count]) => `${count} of ${results.length} on ${adapter}`).join("; ");
  return { backend: last.backend, adapter };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
