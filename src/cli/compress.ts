/**
 * `deno task compress`: writes a model folder that any ONNX Runtime loads.
 *
 * @module
 */
import { type ModelGraphs, operatorsOf } from "../compress/model_graphs.ts";
import { recommendedTarget, resolveOptions } from "../compress/options.ts";
import { writeModelFolder } from "../compress/write_folder.ts";
import type { CompressCommand } from "../config.ts";
import { TuckerdError } from "../errors.ts";
import { print } from "../log.ts";
import { showProgress } from "./progress.ts";
import { openModel } from "./session.ts";
import { reportTable } from "./tables.ts";

/**
 * Compresses, writes the folder and prints the report; with `--json` also what became of every attention operator, even where
 * none can be compressed.
 */
export async function compress(command: CompressCommand): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const model = await open(command, resources);
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
  const json = { ...report, operators: operatorsOf(model) };
  print(command.json ? JSON.stringify(json, null, 2) : `${reportTable(report)}\n\nwritten to ${command.out}`);
}

async function open(command: CompressCommand, resources: AsyncDisposableStack): Promise<ModelGraphs> {
  try {
    return await openModel(command, resources);
  } catch (error) {
    if (command.json && error instanceof TuckerdError && error.fields["operators"] !== undefined) {
      print(JSON.stringify({ error: error.message, operators: error.fields["operators"] }, null, 2));
    }
    throw error;
  }
}
