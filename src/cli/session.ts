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
import { DEFAULT_MODEL } from "./model.ts";

/**
 * Opens the model for a task; `resources` ends what was opened.
 *
 * @throws TuckerdError `not-found`, `bad-model`, `unsupported`
 */
export async function openCompressor(command: CommonSettings, resources: AsyncDisposableStack): Promise<Compressor> {
  const folder = await openModelFolder(command.model ?? DEFAULT_MODEL);
  const store = resources.use(await FactorStore.open(command.cacheDir === "off" ? undefined : command.cacheDir));
  const decomposer = resources.use(new Decomposer(folder.graphPath));
  return await Compressor.open(folder, { device: command.device, store, decomposer });
}

/** Shows a share of work done on a terminal; nothing where stderr isn't one. */
export function showProgress(label: string): (share: number) => void {
  if (!Deno.stderr.isTerminal()) return () => {};
  const encoder = new TextEncoder();
  return (share) => {
    const end = share >= 1 ? "\r\x1b[K" : "";
    Deno.stderr.writeSync(encoder.encode(`\r${label} ${Math.round(share * 100)}%${end}`));
  };
}
