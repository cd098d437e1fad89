/**
 * Spectra as a picture: singular values of each mode by layer, and error against ratio.
 *
 * @module
 */
import type { SpectrumOfLayer } from "../compress/compressor.ts";
import { tensorShape } from "../compress/plan.ts";
import { ranksForRatio } from "../tucker/mod.ts";
import { type Axis, type Panel, plotPage, type Series } from "./svg.ts";

const modes = [
  { key: "hidden", title: "Hidden mode" },
  { key: "head", title: "Head mode" },
  { key: "stack", title: "Stack mode" },
] as const;

/** Ratios at which the error is drawn. */
const ratios = [1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64];
/** Singular values below this share of the largest aren't drawn: that far down they are noise. */
const floor = 1e-6;

/** An SVG page with the spectra of all layers. */
export function spectrumPlot(model: string, layers: readonly SpectrumOfLayer[]): string {
  const colors = layers.map((_, i) => colorOf(i, layers.length));
  const name = ({ block }: SpectrumOfLayer): string => `layer ${block.layer}: ${block.name}`;
  const spectra = modes.map(({ key, title }): Panel => ({
    title: `${title}: singular values`,
    x: indexAxis(Math.max(...layers.map(({ spectrum }) => spectrum.singularValues[key].length))),
    y: shareAxis(Math.min(...layers.map(({ spectrum }) => smallestShare(spectrum.singularValues[key])))),
    series: layers.map((layer, i): Series => {
      const values = layer.spectrum.singularValues[key];
      const largest = values[0] || 1;
      return {
        name: name(layer),
        color: colors[i]!,
        points: Array.from(values, (value, at): [number, number] => [at + 1, value / largest])
          .filter(([, share]) => share >= floor),
      };
    }),
  }));
  const errors: Panel = {
    title: "Error against compression ratio",
    x: { label: "compression ratio", scale: "log", range: [1, 64], ticks: [1, 2, 4, 8, 16, 32, 64] },
    y: { label: "relative error", scale: "linear", range: [0, 1], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
    series: layers.map((layer, i) => ({ name: name(layer), color: colors[i]!, points: errorCurve(layer) })),
  };
  const legend = layers.map(({ block }, i) => ({ name: `layer ${block.layer}`, color: colors[i]! }));
  return plotPage(`${model}: spectra of the attention weights`, [...spectra, errors], legend);
}

/** The smallest error at each ratio that the layer reaches. */
export function errorCurve({ block, spectrum }: SpectrumOfLayer): [ratio: number, error: number][] {
  const layer = { errors: spectrum.errors, shape: tensorShape(block) };
  const [d, h, stack, heads] = layer.shape;
  const most = d * h * stack * heads / (heads + d + h + stack);
  return ratios.filter((ratio) => ratio <= most).map((ratio) => {
    const { energy } = ranksForRatio(layer, ratio);
    return [ratio, Math.sqrt(Math.max(0, 1 - energy))];
  });
}

/** The smallest share of the largest that is drawn. */
function smallestShare(values: Float32Array): number {
  const largest = values[0] || 1;
  return values.reduce((least, value) => value / largest >= floor ? Math.min(least, value / largest) : least, 1);
}

/** Whole powers of ten down to a share. */
function shareAxis(least: number): Axis {
  const decades = Math.max(1, Math.ceil(-Math.log10(least) - 1e-9));
  const ticks = Array.from({ length: decades + 1 }, (_, i) => Number(`1e${i - decades}`));
  return { label: "share of the largest", scale: "log", range: [ticks[0]!, 1], ticks };
}

function indexAxis(length: number): Axis {
  const ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192].filter((tick) => tick <= length);
  const every = Math.ceil(ticks.length / 7);
  return {
    label: "number of the singular value",
    scale: "log",
    range: [1, Math.max(2, length)],
    ticks: ticks.filter((_, i) => i % every === 0),
  };
}

/** From blue for the first layer to red for the last, at a lightness that white and black both carry. */
function colorOf(index: number, count: number): string {
  const hue = Math.round(220 - 220 * (count === 1 ? 0 : index / (count - 1)));
  return `hsl(${hue}, 65%, 50%)`;
}
