/**
 * Compressed models for runtime tests: reports that say nothing, around graphs that a test chooses.
 *
 * @module
 */
import type { CompressedModel, CompressionReport, FactorTensor, GraphSource } from "../../src/compress/artifact.ts";
import { projection } from "./tiny_onnx.ts";

/** A report with empty numbers. */
export const emptyReport: CompressionReport = {
  generation: 0,
  model: "tiny",
  architecture: "tiny",
  mode: "none",
  algorithm: "hooi",
  layout: "heads",
  execution: "dense",
  devices: { tucker: { backend: "none", adapter: "" }, inference: { provider: "" } },
  totals: {
    attentionParameters: 0,
    compressedParameters: 0,
    compressionRatio: 1,
    weightBytes: { before: 0, after: 0 },
    kvBytesPerToken: { before: 0, after: 0 },
    seconds: 0,
  },
  layers: [],
  skipped: [],
};

/** A model around a graph. */
export function modelOf(
  graph: GraphSource,
  structure = "structure",
  feeds: Readonly<Record<string, FactorTensor>> = {},
): CompressedModel {
  return { report: emptyReport, structure, graph, feeds };
}

/** `y = x @ factor` for x [batch, size]: generations of one `size` share a structure whatever their factor's rank. */
export function projectionModel(size: number, factor: readonly (readonly number[])[]): CompressedModel {
  const rank = factor[0]?.length ?? 0;
  return modelOf({ bytes: projection(size) }, `projection-${size}`, {
    factor: { shape: [size, rank], data: new Float32Array(factor.flat()) },
  });
}
