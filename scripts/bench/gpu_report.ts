/**
 * What the GPU benchmark measured, as lines for the terminal and as the page `docs/benchmarks.md`.
 *
 * @module
 */
import type { Peak } from "./gpu_peaks.ts";
import { type BenchResult, median } from "./types.ts";

/** One product. */
export interface ProductMeasure {
  readonly name: string;
  /** How its large operand is stored. */
  readonly storage: "float32" | "float16";
  /** Seconds of each run. */
  readonly seconds: readonly number[];
  /** Multiplications and additions. */
  readonly flops: number;
  /** Bytes of the operands and the result, each counted once. */
  readonly bytes: number;
  /** Seconds of the same on the CPU, where it was run. */
  readonly cpuSeconds?: readonly number[];
}

/** One time that isn't a product's: an upload, a layer, a model. */
export interface TimeMeasure {
  readonly name: string;
  readonly seconds: readonly number[];
  readonly baseline: string;
  readonly baselineSeconds: readonly number[];
  readonly note: string;
}

/** All of it. */
export interface GpuBench {
  /** Device in words. */
  readonly adapter: string;
  readonly software: boolean;
  /** When it was measured. */
  readonly date: Date;
  readonly peak: Peak | undefined;
  readonly products: readonly ProductMeasure[];
  readonly times: readonly TimeMeasure[];
}

/** Lines for the terminal: products against the peak where it is known, else against the CPU. */
export function toResults({ adapter, peak, products, times }: GpuBench): BenchResult[] {
  const compared = products.map((product): BenchResult => {
    const seconds = median(product.seconds);
    const [baseline, baselineSeconds] = peak !== undefined
      ? [`${peak.tflops} TFLOPS peak`, product.flops / peak.tflops / 1e12]
      : product.cpuSeconds !== undefined
      ? ["the CPU", median(product.cpuSeconds)]
      : ["nothing: the device's peak isn't known (--peak-tflops)", Number.NaN];
    const note = `${rate(product)}, ${product.storage}, ${adapter}`;
    return { name: product.name, baseline, seconds, baselineSeconds, ratio: baselineSeconds / seconds, note };
  });
  const timed = times.map(({ name, baseline, note, ...measured }): BenchResult => {
    const [seconds, baselineSeconds] = [median(measured.seconds), median(measured.baselineSeconds)];
    return { name, baseline, seconds, baselineSeconds, ratio: baselineSeconds / seconds, note: `${note}, ${adapter}` };
  });
  return [...compared, ...timed];
}

/** The page in Markdown. */
export function toMarkdown({ adapter, software, date, peak, products, times }: GpuBench): string {
  const lines = [
    "# Benchmarks on a GPU",
    "",
    `Written by \`deno task bench --gpu\` on ${date.toISOString().slice(0, 10)}.`,
    "",
    `Device: **${adapter}**, through WebGPU in Deno ${Deno.version.deno} (${Deno.build.os}, ${Deno.build.arch}).`,
    peak === undefined
      ? "Its float32 peak isn't known to the benchmark; `--peak-tflops` gives it."
      : `Its float32 peak is ${peak.tflops} TFLOPS (${peak.source}).`,
    ...(software ? ["", "**This is a software adapter, not a GPU: the figures say nothing about one.**"] : []),
    "",
    "Times are medians; the waits' own cost is taken off products.",
    "",
    "## Matrix products",
    "",
    ...markdownTable(
      ["product", "tensor stored as", "ms", "TFLOPS", "of the peak", "GB/s"],
      products.map((product) => [
        product.name,
        product.storage,
        milliseconds(product.seconds),
        tflops(product).toPrecision(3),
        peak === undefined ? "" : `${(100 * tflops(product) / peak.tflops).toPrecision(3)}%`,
        gigabytes(product).toPrecision(3),
      ]),
    ),
    "",
    "Products with few rows or columns are limited by memory: for them GB/s counts, operands and result each taken once.",
    "",
    "## Layers",
    "",
    ...markdownTable(
      ["what", "ms", "against", "ms", "times faster", ""],
      times.map(({ name, seconds, baseline, baselineSeconds, note }) => [
        name,
        milliseconds(seconds),
        baseline,
        milliseconds(baselineSeconds),
        (median(baselineSeconds) / median(seconds)).toPrecision(3),
        note,
      ]),
    ),
    "",
  ];
  return lines.join("\n");
}

/** Writes a page whole or not at all: to a temporary name first. */
export async function writePage(page: string, path: string): Promise<void> {
  const folder = path.slice(0, Math.max(0, path.lastIndexOf("/"))) || ".";
  await Deno.mkdir(folder, { recursive: true });
  const temporary = await Deno.makeTempFile({ dir: folder, prefix: ".benchmarks-", suffix: ".md" });
  try {
    await Deno.writeTextFile(temporary, page);
    await Deno.chmod(temporary, 0o644);
    await Deno.rename(temporary, path);
  } catch (error) {
    await Deno.remove(temporary);
    throw error;
  }
}

const tflops = ({ flops, seconds }: ProductMeasure): number => flops / median(seconds) / 1e12;
const gigabytes = ({ bytes, seconds }: ProductMeasure): number => bytes / median(seconds) / 1e9;

function rate(product: ProductMeasure): string {
  return `${tflops(product).toPrecision(3)} TFLOPS, ${gigabytes(product).toPrecision(3)} GB/s`;
}

function milliseconds(seconds: readonly number[]): string {
  const value = 1000 * median(seconds);
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** Pads the columns, as the project's formatter does. */
function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) => Math.max(3, title.length, ...rows.map((row) => row[column]!.length)));
  const numeric = head.map((_, column) => rows.every((row) => /^[\d.]*%?$/.test(row[column]!)) && head[column] !== "");
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => numeric[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join(" | ")} |`;
  const rule = widths.map((width, i) => numeric[i] ? `${"-".repeat(width - 1)}:` : "-".repeat(width));
  return [line(head), `| ${rule.join(" | ")} |`, ...rows.map(line)];
}
