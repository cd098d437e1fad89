/**
 * Reports of a compressed model that isn't there.
 *
 * @module
 */
import type { CompressionReport } from "../../src/compress/artifact.ts";
import type { Ranks } from "../../src/tucker/types.ts";

/** d, h, 4, H of the fake model's layers. */
export const SHAPE = [192, 32, 4, 6] as const;
/** Number of its layers. */
export const LAYERS = 4;

/** Numbers of a layer at these ranks. */
export function compressedParameters([r1, r2, r3]: Ranks): number {
  const [d, h, , heads] = SHAPE;
  return r1 * r2 * r3 * heads + d * r1 + h * r2 + 4 * r3;
}

/** A smooth error that falls as any rank grows, and is 0 at full ranks. */
export function relativeError([r1, r2, r3]: Ranks, layer: number): number {
  const left = (rank: number, size: number): number => (1 - rank / size) ** 2;
  return Math.sqrt((left(r1, SHAPE[0]) + left(r2, SHAPE[1]) + left(r3, SHAPE[2])) / 3) * (0.6 + 0.1 * layer);
}

/** A report with the same ranks in every layer. */
export function fakeReport(generation: number, ranks: Ranks): CompressionReport {
  const [d, h, s, heads] = SHAPE;
  const parameters = d * h * s * heads;
  const layers = Array.from({ length: LAYERS }, (_, layer) => {
    const error = relativeError(ranks, layer);
    return {
      layer,
      name: `bert.encoder.layer.${layer}.attention`,
      mode: "4d-tucker" as const,
      ranks,
      parameters,
      compressedParameters: compressedParameters(ranks),
      compressionRatio: parameters / compressedParameters(ranks),
      relativeError: error,
      matrixErrors: { q: error * 1.1, k: error * 1.2, v: error * 0.8, o: error * 0.9 },
      seconds: 0.02,
    };
  });
  const before = parameters * LAYERS;
  const after = compressedParameters(ranks) * LAYERS;
  return {
    generation,
    model: "default",
    architecture: "bert",
    mode: "4d-tucker",
    algorithm: "hooi",
    layout: "heads",
    execution: "factored",
    devices: { tucker: { backend: "cpu", adapter: "onnxruntime" }, inference: { provider: "cpu" } },
    totals: {
      attentionParameters: before,
      compressedParameters: after,
      compressionRatio: before / after,
      weightBytes: { before: before * 4, after: after * 4 },
      kvBytesPerToken: { before: 0, after: 0 },
      seconds: 0.08,
    },
    layers,
    skipped: [],
  };
}
