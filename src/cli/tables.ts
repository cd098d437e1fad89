/**
 * Reports as text for a terminal.
 *
 * @module
 */
import type { CompressionReport } from "../compress/artifact.ts";

/** Rows as aligned columns; the first row is the heading. Numbers go to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const isNumber = (text: string) => /^[\d.,×-]+%?$/.test(text);
  return rows.map((row) =>
    row.map((cell, column) => isNumber(cell) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!))
      .join("  ").trimEnd()
  ).join("\n");
}

/** The report with a row a layer: its ranks, ratio and errors. */
export function reportTable(report: CompressionReport): string {
  const rows = report.layers.map((layer) => [
    String(layer.layer),
    layer.name,
    layer.mode,
    layer.ranks?.join(",") ?? "-",
    layer.compressionRatio.toFixed(2),
    layer.relativeError.toFixed(4),
    ...[layer.matrixErrors.q, layer.matrixErrors.k, layer.matrixErrors.v, layer.matrixErrors.o].map((e) =>
      e.toFixed(4)
    ),
  ]);
  const { totals, devices } = report;
  const skipped = report.skipped.map(({ node, operator, reason }) => `left as it is: ${operator} ${node}: ${reason}`);
  return [
    table([["layer", "name", "mode", "ranks", "ratio", "error", "q", "k", "v", "o"], ...rows]),
    ...skipped,
    "",
    `attention ${totals.attentionParameters} → ${totals.compressedParameters} parameters ` +
    `(${totals.compressionRatio.toFixed(2)} times smaller), all weights ${totals.weightBytes.before} → ` +
    `${totals.weightBytes.after} bytes; ${totals.seconds.toFixed(2)} s on ${devices.tucker.backend} ` +
    `(${devices.tucker.adapter}), ${report.execution} execution`,
  ].join("\n");
}
