/**
 * What the offline tasks share: a compressor over the model that the command line names.
 *
 * @module
 */
import { Compressor } from "../compress/compressor.ts";
import { Decomposer } from "../compress/decomposer.ts";
import { openModelFolder } from "../compress/model_folder.ts";
import { FactorStore } from "../compress/store.ts";
import type { CommonSettings } from "../config.ts";
import { locateModel } from "./locate_model.ts";
import { DEFAULT_MODEL } from "./model.ts";

/**
 * Opens the model for a task; `resources` ends what was opened.
 *
 * @throws TuckerdError `not-found`, `bad-model`, `unsupported`
 */
export async function openCompressor(command: CommonSettings, resources: AsyncDisposableStack): Promise<Compressor> {
  const { path, id } = await locateModel(command.model ?? DEFAULT_MODEL);
  const opened = await openModelFolder(path);
  const folder = { ...opened, id: id ?? opened.id };
  const store = resources.use(await FactorStore.open(command.cacheDir === "off" ? undefined : command.cacheDir));
  const decomposer = resources.use(new Decomposer(folder.graphPath));
  return await Compressor.open(folder, { device: command.device, store, decomposer });
}
