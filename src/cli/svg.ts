/**
 * Line plots as SVG: panels with axes, linear or logarithmic, on a page that follows the reader's light or dark scheme.
 *
 * @module
 */

/** How numbers of a panel become positions. */
export interface Axis {
  readonly label: string;
  readonly scale: "linear" | "log";
  readonly range: readonly [number, number];
  /** Where a grid line and a number stand. */
  readonly ticks: readonly number[];
}

/** One line of a panel. */
export interface Series {
  /** Shown as a tooltip. */
  readonly name: string;
  /** Such as `hsl(210 60% 50%)`, readable on white and on black. */
  readonly color: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** One plot. */
export interface Panel {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

/** One entry of the legend. */
export type LegendEntry = Pick<Series, "name" | "color">;

const panelSize = { width: 420, height: 270 } as const;
const margin = { left: 66, right: 14, top: 34, bottom: 44 } as const;
const columns = 2;
const head = 40;
const legendLine = 20;

const style = `
  svg { color-scheme: light dark; --ink: #1b1f24; --faint: #d6dae0; --page: #ffffff; }
  @media (prefers-color-scheme: dark) { svg { --ink: #e6e9ee; --faint: #3a414b; --page: #14171c; } }
  .page { fill: var(--page, #ffffff); }
  text { fill: var(--ink, #1b1f24); font: 12px system-ui, sans-serif; }
  .title { font-size: 16px; font-weight: 600; }
  .panel-title { font-weight: 600; }
  .grid { stroke: var(--faint, #d6dae0); stroke-width: 1; }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
  .end { text-anchor: end; } .middle { text-anchor: middle; }`;

/** A page of panels, two in a row, with a legend under them. */
export function plotPage(
  title: string,
  panels: readonly Panel[],
  legend: readonly LegendEntry[],
): string {
  const rows = Math.ceil(panels.length / columns);
  const width = columns * panelSize.width;
  const perLine = 6;
  const legendTop = head + rows * panelSize.height;
  const height = legendTop + Math.ceil(legend.length / perLine) * legendLine + 12;
  const placed = panels.map((panel, i) => {
    const [x, y] = [(i % columns) * panelSize.width, head + Math.floor(i / columns) * panelSize.height];
    return `<g transform="translate(${x} ${y})">\n${panelMarkup(panel)}\n</g>`;
  });
  const entries = legend.map(({ name, color }, i) => {
    const [x, y] = [16 + (i % perLine) * (width - 16) / perLine, legendTop + Math.floor(i / perLine) * legendLine + 12];
    return `<line x1="${position(x)}" y1="${y}" x2="${position(x + 18)}" y2="${y}" class="line" stroke="${
      escape(color)
    }"/>` + `<text x="${position(x + 24)}" y="${y + 4}">${escape(name)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `role="img" aria-labelledby="plot-title">`,
    `<title id="plot-title">${escape(title)}</title>`,
    `<style>${style}\n</style>`,
    `<rect class="page" width="${width}" height="${height}"/>`,
    `<text x="16" y="26" class="title">${escape(title)}</text>`,
    ...placed,
    ...entries,
    "</svg>\n",
  ].join("\n");
}

function panelMarkup({ title, x, y, series }: Panel): string {
  const [left, right] = [margin.left, panelSize.width - margin.right];
  const [top, bottom] = [margin.top, panelSize.height - margin.bottom];
  const atX = (value: number): string => position(left + share(x, value) * (right - left));
  const atY = (value: number): string => position(bottom - share(y, value) * (bottom - top));
  return [
    `<text x="${left}" y="20" class="panel-title">${escape(title)}</text>`,
    ...x.ticks.map((tick) =>
      `<line class="grid" x1="${atX(tick)}" y1="${top}" x2="${atX(tick)}" y2="${bottom}"/>` +
      `<text class="middle" x="${atX(tick)}" y="${bottom + 16}">${tickText(tick)}</text>`
    ),
    ...y.ticks.map((tick) =>
      `<line class="grid" x1="${left}" y1="${atY(tick)}" x2="${right}" y2="${atY(tick)}"/>` +
      `<text class="end" x="${left - 6}" y="${Number(atY(tick)) + 4}">${tickText(tick)}</text>`
    ),
    `<text class="middle" x="${(left + right) / 2}" y="${bottom + 34}">${escape(x.label)}</text>`,
    `<text class="middle" transform="translate(14 ${(top + bottom) / 2}) rotate(-90)">${escape(y.label)}</text>`,
    ...series.map(({ name, color, points }) =>
      `<polyline class="line" stroke="${escape(color)}" points="${
        points.map(([px, py]) => `${atX(px)},${atY(py)}`).join(" ")
      }"><title>${escape(name)}</title></polyline>`
    ),
  ].join("\n");
}

/** Where a value lies on an axis, 0 to 1; values outside stick to its ends. */
function share({ scale, range: [first, last] }: Axis, value: number): number {
  const at = scale === "log" ? Math.log : (number: number) => number;
  const result = (at(value) - at(first)) / (at(last) - at(first));
  return Math.min(1, Math.max(0, Number.isNaN(result) ? 0 : result));
}

function tickText(value: number): string {
  return value !== 0 && (value < 1e-3 || value >= 1e5) ? value.toExponential(0).replace("e+", "e") : String(value);
}

function position(value: number): string {
  return String(Math.round(value * 100) / 100);
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
