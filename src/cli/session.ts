/**
 * What the offline tasks share: a compressor over the model that the command line names.
 *
 * @module
 */
import { Compressor } from "../compress/compressor.ts";
import { Decomposer } from "../compress/decomposer.ts";
import { type ModelFolder, openModelFolder, singleGraph } from "../compress/model_folder.ts";
import { type ModelGraphs, openGraphs } from "../compress/model_graphs.ts";
import { FactorStore } from "../compress/store.ts";
import type { CommonSettings } from "../config.ts";
import { locateModel } from "./locate_model.ts";
import { DEFAULT_MODEL } from "./model.ts";

/**
 * Opens a model of one graph for a task; `resources` ends what was opened.
 *
 * @throws TuckerdError `not-found`, `bad-model`, `unsupported` (several graphs, or no attention)
 */
export async function openCompressor(command: CommonSettings, resources: AsyncDisposableStack): Promise<Compressor> {
  const { folder, store } = await open(command, resources);
  const decomposer = resources.use(new Decomposer(singleGraph(folder).graphPath));
  return await Compressor.open(folder, { device: command.device, store, decomposer });
}

/**
 * Opens all graphs of a model for a task; `resources` ends what was opened.
 *
 * @throws TuckerdError `not-found`, `bad-model`, `unsupported`
 */
export async function openModel(command: CommonSettings, resources: AsyncDisposableStack): Promise<ModelGraphs> {
  const { folder, store } = await open(command, resources);
  return await openGraphs(folder, { device: command.device, store }, resources);
}

async function open(
  command: CommonSettings,
  resources: AsyncDisposableStack,
): Promise<{ readonly folder: ModelFolder; readonly store: FactorStore }> {
  const { path, id, graphPaths } = await locateModel(command.model ?? DEFAULT_MODEL);
  const opened = await openModelFolder(path, graphPaths);
  const store = resources.use(await FactorStore.open(command.cacheDir === "off" ? undefined : command.cacheDir));
  return { folder: { ...opened, id: id ?? opened.id }, store };
}
