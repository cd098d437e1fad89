/**
 * `deno task compress`: writes a model folder that any ONNX Runtime loads.
 *
 * @module
 */
import { recommendedTarget, resolveOptions } from "../compress/options.ts";
import { writeModelFolder } from "../compress/write_folder.ts";
import type { CompressCommand } from "../config.ts";
import { print } from "../log.ts";
import { showProgress } from "./progress.ts";
import { openModel } from "./session.ts";
import { reportTable } from "./tables.ts";

/** Compresses, writes the folder and prints the report. */
export async function compress(command: CompressCommand): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const model = await openModel(command, resources);
  const options = resolveOptions(command.compression, recommendedTarget(model.folder));
  const progress = showProgress("decomposing");
  let [done, total] = [0, model.compressors.reduce((sum, { blocks }) => sum + blocks.length, 0)];
  const report = await writeModelFolder(model, options, {
    out: command.out,
    execution: command.execution,
    cache: command.cache,
    onBegin: (layers) => total = layers,
    onLayer: () => progress(++done / total),
  });
  print(command.json ? JSON.stringify(report, null, 2) : `${reportTable(report)}\n\nwritten to ${command.out}`);
}
