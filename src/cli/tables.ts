/**
 * Reports as text for a terminal.
 *
 * @module
 */
import type { CompressionReport, LayerReport } from "../compress/artifact.ts";

/** Rows as aligned columns; the first row is the heading. Numbers go to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const isNumber = (text: string) => /^[\d.,/×-]+%?$/.test(text);
  return rows.map((row) =>
    row.map((cell, column) => isNumber(cell) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))
      .join("  ").trimEnd()
  ).join("\n");
}

/** The report with a row a layer: its ranks, ratio and errors. */
export function reportTable(report: CompressionReport): string {
  const several = report.layers.some(({ graph }) => graph !== undefined);
  const rows = report.layers.map((layer) => [
    ...(several ? [layer.graph ?? ""] : []),
    String(layer.layer),
    layer.name,
    layer.mode,
    ranksText(layer),
    layer.compressionRatio.toFixed(2),
    layer.relativeError.toFixed(4),
    ...[layer.matrixErrors.q, layer.matrixErrors.k, layer.matrixErrors.v, layer.matrixErrors.o].map((e) =>
      e.toFixed(4)
    ),
  ]);
  const { totals, devices } = report;
  const graph = several ? ["graph"] : [];
  const networks = report.layers.flatMap(({ graph, layer, feedForward = [] }) =>
    feedForward.map(({ name, rank, parameters, compressedParameters, relativeError, execution }) => [
      ...(several ? [graph ?? ""] : []),
      String(layer),
      name,
      String(rank),
      (parameters / compressedParameters).toFixed(2),
      relativeError.toFixed(4),
      execution,
    ])
  );
  const skipped = report.skipped.map(({ node, operator, reason }) => `left as it is: ${operator} ${node}: ${reason}`);
  return [
    table([[...graph, "layer", "name", "mode", "ranks", "ratio", "error", "q", "k", "v", "o"], ...rows]),
    ...(networks.length === 0
      ? []
      : ["", table([[...graph, "layer", "matrix", "rank", "ratio", "error", "runs"], ...networks])]),
    ...skipped,
    "",
    `attention ${totals.attentionParameters} → ${totals.compressedParameters} parameters ` +
    `(${totals.compressionRatio.toFixed(2)} times smaller), all weights ${totals.weightBytes.before} → ` +
    `${totals.weightBytes.after} bytes; ${totals.seconds.toFixed(2)} s on ${devices.tucker.backend} ` +
    `(${devices.tucker.adapter}), ${report.execution} execution`,
    ...(networks.length === 0 || totals.feedForward === undefined ? [] : [
      `feed-forward ${totals.feedForward.parameters} → ${totals.feedForward.compressedParameters} parameters ` +
      `(${totals.feedForward.compressionRatio.toFixed(2)} times smaller)`,
    ]),
  ].join("\n");
}

/** r1,r2,r3, or the ranks of q, k, v and o with a dash for one that is as it was. */
function ranksText({ ranks, matrixRanks }: LayerReport): string {
  if (matrixRanks === undefined) return ranks?.join(",") ?? "-";
  const { q, k, v, o } = matrixRanks;
  return [q, k, v, o].map((rank) => rank ?? "-").join("/");
}
