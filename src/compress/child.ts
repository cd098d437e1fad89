/**
 * The decomposition process: reads commands as lines of JSON, writes each result as a factor file, and tells of it in lines of
 * JSON. It may crash without taking the server along; it ends when its standard input does.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text_line_stream.js";
import { extractWeights, findAttention, type FoundAttention } from "../attention/mod.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { loadModel, type OnnxModel } from "../onnx/model.ts";
import { decomposeLayer, hosvd, modeTables } from "../tucker/mod.ts";
import { encodeFactorFile, writeAtomically } from "./factor_file.ts";
import { toFactorFile } from "./layer_file.ts";
import { ChildCommand, type ChildEvent, type LayerTask, type SpectrumTask } from "./layer_task.ts";
import { OpsSource } from "./ops_source.ts";
import { toSpectrumFile } from "./spectrum_file.ts";

/** Weights are loaded at the first command and kept for the next: re-ranks come in rows. */
interface Loaded {
  readonly model: OnnxModel;
  readonly found: FoundAttention;
}

const encoder = new TextEncoder();

function tell(event: ChildEvent): void {
  const bytes = encoder.encode(`${JSON.stringify(event)}\n`);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

function blockOf({ found }: Loaded, layer: number): FoundAttention["blocks"][number] {
  const block = found.blocks[layer];
  if (block === undefined) throw new TuckerdError("invalid", `the model has no attention layer ${layer}`);
  return block;
}

async function decompose(loaded: Loaded, task: LayerTask, source: OpsSource): Promise<Uint8Array> {
  const block = blockOf(loaded, task.layer);
  const { weights } = extractWeights(loaded.model, block);
  const { value, ops } = await source.use((ops) =>
    decomposeLayer(weights, { ...task, where: { layer: block.layer, name: block.name } }, ops)
  );
  return encodeFactorFile(toFactorFile({ decomposition: value, ...ops }));
}

async function spectrum(loaded: Loaded, task: SpectrumTask, source: OpsSource): Promise<Uint8Array> {
  const block = blockOf(loaded, task.layer);
  const { weights } = extractWeights(loaded.model, block);
  const options = { layout: task.layout, balance: task.balance, where: { layer: block.layer, name: block.name } };
  const { value: { layer, modes } } = await source.use(async (ops) => ({
    layer: await hosvd(weights, options, ops),
    modes: task.allModes ? await modeTables(weights, options, ops) : undefined,
  }));
  return encodeFactorFile(toSpectrumFile(layer, modes));
}

async function serve(graphPath: string): Promise<void> {
  let loaded: Loaded | undefined;
  using source = new OpsSource();
  const lines: ReadableStream<string> = Deno.stdin.readable
    .pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
  for await (const line of lines) {
    const command = ChildCommand.parse(JSON.parse(line));
    try {
      if (loaded === undefined) {
        const model = await loadModel(graphPath);
        loaded = { model, found: findAttention(model) };
      }
      await source.open(command.device);
      for (const [index, file] of command.files.entries()) {
        const bytes = command.command === "decompose"
          ? await decompose(loaded, command.tasks[index]!, source)
          : await spectrum(loaded, command.tasks[index]!, source);
        await writeAtomically(file, bytes);
        tell({ event: "task", id: command.id, index });
      }
      tell({ event: "done", id: command.id });
    } catch (thrown) {
      const error = TuckerdError.from(thrown);
      log(2, error.stack ?? error.message);
      tell({ event: "error", id: command.id, error: error.toJSON() });
    }
  }
}

if (import.meta.main) await serve(Deno.args[0]!);
