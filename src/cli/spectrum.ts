/**
 * `deno task spectrum`: singular values of each mode of each layer, and error against ranks.
 *
 * @module
 */
import type { SpectrumCommand } from "../config.ts";
import type { SpectrumOfLayer } from "../compress/compressor.ts";
import { tensorShape } from "../compress/plan.ts";
import { TuckerdError } from "../errors.ts";
import { print } from "../log.ts";
import { compressionRatio } from "../tucker/mod.ts";
import type { Ranks } from "../tucker/types.ts";
import { openCompressor } from "./session.ts";
import { spectrumPlot } from "./spectrum_plot.ts";
import { table } from "./tables.ts";

/** Shares of each dimension at which the table shows the error. */
const shares = [1, 3 / 4, 1 / 2, 1 / 3, 1 / 4, 1 / 8];

/** Prints the spectra. */
export async function spectrum(command: SpectrumCommand): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const compressor = await openCompressor(command, resources);
  const { layout, balance } = command;
  const layers = await compressor.spectrum({ layout, balance, layers: command.layers });
  if (command.svg !== undefined) await writePlot(command.svg, spectrumPlot(compressor.folder.id, layers));
  if (command.json) {
    const json = layers.map(({ block, spectrum }) => ({
      layer: block.layer,
      name: block.name,
      shape: tensorShape(block),
      singularValues: {
        hidden: [...spectrum.singularValues.hidden],
        head: [...spectrum.singularValues.head],
        stack: [...spectrum.singularValues.stack],
      },
      errors: errorRows({ block, spectrum }),
    }));
    return print(JSON.stringify({ model: compressor.folder.id, layers: json }, null, 2));
  }
  for (const layer of layers) {
    const { block, spectrum } = layer;
    const { hidden, head, stack } = spectrum.singularValues;
    print(`layer ${block.layer} ${block.name}: d ${block.hiddenSize}, h ${block.headSize}, H ${block.heads}`);
    print(`  hidden mode  ${summary(hidden)}`);
    print(`  head mode    ${summary(head)}`);
    print(`  stack mode   ${[...stack].map((value) => value.toPrecision(4)).join("  ")}`);
    const rows = errorRows(layer).map((
      { ranks, ratio, error },
    ) => [ranks.join(","), ratio.toFixed(2), error.toFixed(4)]);
    print(`${table([["ranks", "ratio", "error at most"], ...rows]).replaceAll(/^/gm, "  ")}\n`);
  }
}

async function writePlot(path: string, plot: string): Promise<void> {
  try {
    await Deno.writeTextFile(path, plot);
  } catch (error) {
    throw new TuckerdError("failed", `can't write the plot ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** Errors along the diagonal of the rank space, at full and at half stack rank. */
function errorRows({ block, spectrum }: SpectrumOfLayer): { ranks: Ranks; ratio: number; error: number }[] {
  const [d, h] = tensorShape(block);
  const ranks = [4, 2].flatMap((r3) => shares.map((share): Ranks => [Math.ceil(d * share), Math.ceil(h * share), r3]));
  return ranks.map((each) => ({
    ranks: each,
    ratio: compressionRatio(tensorShape(block), each),
    error: spectrum.errors.relativeError(each),
  }));
}

/** First, middle and last of a row of singular values, descending. */
function summary(values: Float32Array): string {
  const at = [0, 1 / 4, 1 / 2, 3 / 4, 1].map((share) => Math.round(share * (values.length - 1)));
  return `${at.map((i) => `σ${i + 1} ${values[i]!.toPrecision(4)}`).join("  ")}`;
}
