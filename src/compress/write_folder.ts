/**
 * A compressed model on disk: a folder of its own in the Hugging Face layout, whole or not at all; or one more graph beside the
 * original.
 *
 * @module
 */
import { basename, dirname, extname, join, resolve } from "node:path";
import { TuckerdError } from "../errors.ts";
import { loadModel } from "../onnx/model.ts";
import { saveModel } from "../onnx/save.ts";
import type { CompressionReport } from "./artifact.ts";
import type { CacheKind } from "./block_form.ts";
import { type CacheSizes, cacheSizes, checkSameCaches } from "./caches.ts";
import { cachesIn, checkExecution, checkFile, refuseFullCache, refuseNonEmpty, reportPath } from "./write_checks.ts";
import { Compressor, type CompressRun } from "./compressor.ts";
import type { WrittenGraph } from "./graphs.ts";
import { type GraphReport, mergeReports } from "./merged_report.ts";
import type { ModelGraphs } from "./model_graphs.ts";
import type { CompressionOptions } from "./options.ts";

/** How and where a model is written. */
export interface WriteFolderOptions extends CompressRun {
  /** A new or empty folder; or an .onnx file that isn't there yet, in the folder of the model's graph. */
  readonly out: string;
  /** `factored`: factors as initializers; `dense`: the reconstruction in the place of the weights. */
  readonly execution: "factored" | "dense";
  /** How a decoder's cache is kept; `full` by default, the others need factors. */
  readonly cache?: CacheKind;
}

/** Files beside the graph that belong to a model: configuration, tokenizer, vocabulary. */
const companions = new Set([".json", ".txt", ".model", ".jinja", ".md"]);

/**
 * Compresses and writes. A folder gets each graph in `onnx/` under the name it had, the weights that it still uses, the files beside it,
 * and the report as `tuckerd.json`. A file gets the graph alone, which refers to the model's own external data, and the report beside it
 * as `NAME.tuckerd.json`.
 *
 * @throws TuckerdError `invalid` where `out` holds something already or the layout can't run factored; `failed` where the disk
 * refuses, and then nothing is left behind
 */
export async function writeModelFolder(
  model: Compressor | ModelGraphs,
  options: CompressionOptions,
  { out, ...settings }: WriteFolderOptions,
): Promise<CompressionReport> {
  const graphs = model instanceof Compressor ? { folder: model.folder, compressors: [model], others: [] } : model;
  const target = resolve(out);
  if (extname(target) === ".onnx") await checkFile(out, graphs);
  else await refuseNonEmpty(out);
  checkExecution(graphs, options, settings);
  for (const compressor of graphs.compressors) named(compressor, graphs, () => compressor.plan(options));
  if (extname(target) === ".onnx") {
    return await writeFile(graphs.compressors[0]!, options, { out: target, ...settings });
  }

  const temporary = `${target}.${crypto.randomUUID()}.part`;
  try {
    await Deno.mkdir(temporary, { recursive: true });
    const report = await writeGraphs(graphs, options, { out: join(temporary, "onnx"), ...settings });
    await copyCompanions(graphs.folder.path, temporary);
    await writeReport(report, join(temporary, "tuckerd.json"));
    await Deno.mkdir(dirname(target), { recursive: true });
    await Deno.rename(temporary, target);
    return report;
  } catch (error) {
    await Deno.remove(temporary, { recursive: true }).catch(() => {/* it may never have been made */});
    throw unwritten(error, out);
  }
}

/** One graph after the other, so that memory holds one. */
async function writeGraphs(
  { compressors, others }: ModelGraphs,
  options: CompressionOptions,
  { out, ...settings }: WriteFolderOptions,
): Promise<CompressionReport> {
  const reports: GraphReport[] = [];
  const caches: CacheSizes[] = [];
  const { onBegin: _, ...several } = settings; // a caller that asks for the number of layers asks for that of the whole
  for (const compressor of compressors) {
    const graph = basename(compressor.folder.graphPath);
    const run = compressors.length === 1 ? settings : several;
    const { written, report } = await compressGraph(compressor, options, run);
    reports.push({ graph, report });
    caches.push(cacheSizes(graph, written.model));
    await saveModel(written.model, join(out, graph));
  }
  checkSameCaches(caches);
  for (const { path } of others) await saveModel(await loadModel(path), join(out, basename(path)));
  const report = mergeReports(reports as [GraphReport, ...GraphReport[]]);
  const left = others.map(({ path, reason }) => {
    const graph = basename(path);
    return { graph, node: graph, operator: "graph", reason };
  });
  return { ...report, skipped: [...report.skipped, ...left] };
}

async function writeFile(
  compressor: Compressor,
  options: CompressionOptions,
  { out, ...settings }: WriteFolderOptions,
): Promise<CompressionReport> {
  const { written, report } = await compressGraph(compressor, options, settings);
  try {
    await saveModel(written.model, out);
    await writeReport(report, reportPath(out));
  } catch (error) {
    throw unwritten(error, out);
  }
  return report;
}

async function compressGraph(
  compressor: Compressor,
  options: CompressionOptions,
  { execution, cache = "full", ...run }: Omit<WriteFolderOptions, "out">,
): Promise<{ readonly written: WrittenGraph; readonly report: CompressionReport }> {
  const started = performance.now();
  const decomposed = await compressor.decompose(options, run);
  const written = execution === "dense"
    ? await compressor.withReconstructions(decomposed)
    : await compressor.withFactors(decomposed, cachesIn(compressor) ? cache : "full");
  const seconds = (performance.now() - started) / 1000;
  const report = compressor.report({ options, decomposed, execution, written, feeds: {}, seconds });
  if (cache !== "full" && cachesIn(compressor)) refuseFullCache(compressor, report, cache);
  return { written, report };
}

/** What fails in one of several graphs says in which. */
function named<T>({ folder }: Compressor, { compressors }: ModelGraphs, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof TuckerdError) || compressors.length === 1) throw error;
    const { kind, fields } = error;
    throw new TuckerdError(kind, `${basename(folder.graphPath)}: ${error.message}`, { cause: error, fields });
  }
}

async function writeReport(report: CompressionReport, path: string): Promise<void> {
  await Deno.writeTextFile(path, `${JSON.stringify(report, null, 2)}\n`);
}

function unwritten(error: unknown, out: string): TuckerdError {
  if (error instanceof TuckerdError) return error;
  return new TuckerdError("failed", `can't write the model ${out}: ${(error as Error).message}`, { cause: error });
}

async function copyCompanions(from: string, to: string): Promise<void> {
  for await (const entry of Deno.readDir(from)) {
    if (!entry.isDirectory && companions.has(extname(entry.name)) && entry.name !== "README.md") {
      await Deno.copyFile(join(from, entry.name), join(to, entry.name));
    }
  }
}
