/**
 * One report of a model that is kept in several graphs.
 *
 * @module
 */
import type { CompressionReport } from "./artifact.ts";

/** The report of one graph file. */
export interface GraphReport {
  /** The file's name. */
  readonly graph: string;
  readonly report: CompressionReport;
}

/**
 * Layers one graph after the other, each with its file's name; sizes added up as the files hold them. Decoders for the first and the
 * later calls share a cache, so of those it is the largest that counts.
 */
export function mergeReports(reports: readonly [GraphReport, ...GraphReport[]]): CompressionReport {
  const [{ report: first }] = reports;
  if (reports.length === 1) return first;
  const all = reports.map(({ report }) => report);
  const total = (pick: (totals: CompressionReport["totals"]) => number): number =>
    all.reduce((sum, { totals }) => sum + pick(totals), 0);
  const attentionParameters = total((totals) => totals.attentionParameters);
  const compressedParameters = total((totals) => totals.compressedParameters);
  const networks = {
    parameters: total(({ feedForward }) => feedForward?.parameters ?? 0),
    compressedParameters: total(({ feedForward }) => feedForward?.compressedParameters ?? 0),
  };
  return {
    ...first,
    devices: (all.find(({ devices }) => devices.tucker.backend !== "none") ?? first).devices,
    totals: {
      attentionParameters,
      compressedParameters,
      compressionRatio: attentionParameters / compressedParameters,
      weightBytes: {
        before: total(({ weightBytes }) => weightBytes.before),
        after: total(({ weightBytes }) => weightBytes.after),
      },
      kvBytesPerToken: {
        before: Math.max(...all.map(({ totals }) => totals.kvBytesPerToken.before)),
        after: Math.max(...all.map(({ totals }) => totals.kvBytesPerToken.after)),
      },
      ...(networks.parameters === 0
        ? {}
        : { feedForward: { ...networks, compressionRatio: networks.parameters / networks.compressedParameters } }),
      seconds: total(({ seconds }) => seconds),
    },
    layers: reports.flatMap(({ graph, report }) => report.layers.map((layer) => ({ graph, ...layer }))),
    skipped: reports.flatMap(({ graph, report }) => report.skipped.map((skipped) => ({ graph, ...skipped }))),
  };
}
