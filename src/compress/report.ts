/**
 * The report of a compression (contract: "The report"): what was asked, what it cost, what it saved, what really ran.
 *
 * @module
 */
import type { FoundAttention } from "../attention/mod.ts";
import type { AttentionBlock } from "../attention/types.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { layerParameters } from "../tucker/mod.ts";
import type { LayerFactors, Ranks } from "../tucker/types.ts";
import type { CompressionReport, FactorTensor, LayerReport } from "./artifact.ts";
import type { CompressedLayer } from "./compressor.ts";
import type { ModelFolder } from "./model_folder.ts";
import type { CompressionOptions } from "./options.ts";
import { tensorShape } from "./plan.ts";
import { weightBytes } from "./weight_files.ts";

/** What a report is made from. */
export interface ReportSources {
  readonly folder: ModelFolder;
  readonly found: FoundAttention;
  readonly options: CompressionOptions;
  readonly layers: readonly CompressedLayer[];
  readonly execution: "factored" | "dense";
  readonly original: OnnxModel;
  /** The graph that runs, with the factors that it is fed. */
  readonly rewritten: OnnxModel;
  readonly feeds: Readonly<Record<string, FactorTensor>>;
  /** Time of the whole compression. */
  readonly seconds: number;
}

/** Bytes of a cached number: caches are float32. */
const cacheBytes = 4;

/** Makes the report. Generation and inference provider are filled in by whoever runs the result. */
export function makeReport(sources: ReportSources): CompressionReport {
  const { folder, found, options, execution } = sources;
  const decomposed = new Map(sources.layers.map((layer) => [layer.block.layer, layer]));
  const layers = found.blocks.map((block) => layerReport(block, decomposed.get(block.layer)));
  const attentionParameters = sum(layers.map((layer) => layer.parameters));
  const compressedParameters = sum(layers.map((layer) => layer.compressedParameters));
  const feedBytes = sum(Object.values(sources.feeds).map((feed) => feed.data.byteLength));
  return {
    generation: 0,
    model: folder.id,
    architecture: folder.architecture,
    mode: options.mode,
    layout: options.layout,
    execution,
    devices: { tucker: tuckerDevice(sources.layers), inference: { provider: "none" } },
    totals: {
      attentionParameters,
      compressedParameters,
      compressionRatio: attentionParameters / compressedParameters,
      weightBytes: { before: weightBytes(sources.original), after: weightBytes(sources.rewritten) + feedBytes },
      kvBytesPerToken: {
        before: cacheBytes * sum(found.blocks.map((block) => block.cacheNumbersPerToken)),
        after: cacheBytes * sum(found.blocks.map((block) => block.cacheNumbersPerToken)),
      },
      seconds: sources.seconds,
    },
    layers,
    skipped: found.skipped,
  };
}

function layerReport(block: AttentionBlock, compressed: CompressedLayer | undefined): LayerReport {
  const parameters = layerParameters(tensorShape(block));
  const place = { layer: block.layer, name: block.name, parameters };
  if (compressed === undefined) {
    return {
      ...place,
      mode: "none",
      ranks: null,
      compressedParameters: parameters,
      compressionRatio: 1,
      relativeError: 0,
      matrixErrors: { q: 0, k: 0, v: 0, o: 0 },
      seconds: 0,
    };
  }
  const { factors, relativeError, matrixErrors, seconds } = compressed.stored.decomposition;
  const compressedParameters = factorParameters(factors, parameters / 4);
  return {
    ...place,
    mode: compressed.task.mode,
    ranks: ranksOf(factors),
    compressedParameters,
    compressionRatio: parameters / compressedParameters,
    relativeError,
    matrixErrors,
    seconds,
  };
}

/** Numbers in the factors, and in the matrices that were left whole (`matrixParameters` each). */
function factorParameters(factors: LayerFactors, matrixParameters: number): number {
  if (factors.kind === "tucker4") {
    const { u1, u2, u3, core } = factors.factors;
    return u1.length + u2.length + u3.length + core.length;
  }
  const compressed = factors.kind === "tucker3"
    ? Object.values(factors.matrices).map(({ u1, u2, core }) => u1.length + u2.length + core.length)
    : Object.values(factors.matrices).map(({ left, right }) => left.length + right.length);
  return sum(compressed) + (4 - compressed.length) * matrixParameters;
}

function ranksOf(factors: LayerFactors): Ranks | null {
  if (factors.kind === "tucker4") return factors.factors.ranks;
  if (factors.kind === "low-rank") return null;
  const first = Object.values(factors.matrices)[0];
  return first === undefined ? null : [first.ranks[0], first.ranks[1], 1];
}

/** What decomposed the layers: one device, since a job uses one. */
function tuckerDevice(layers: readonly CompressedLayer[]): CompressionReport["devices"]["tucker"] {
  const stored = layers[0]?.stored;
  if (stored === undefined) return { backend: "none", adapter: "nothing was decomposed" };
  return { backend: stored.backend, adapter: stored.adapter };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
