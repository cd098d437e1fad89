/**
 * The decomposition process: reads commands as lines of JSON, writes each result as a factor file, and tells of it in lines of
 * JSON. It may crash without taking the server along; it ends when its standard input does.
 *
 * @module
 */
import { TextLineStream } from "@std/streams/text_line_stream.js";
import { extractFeedForward, type FeedForwardMatrixName, findFeedForward } from "../attention/feed_forward/mod.ts";
import { extractWeights, findAttention, type FoundAttention, MATRICES } from "../attention/mod.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { loadModel, type OnnxModel } from "../onnx/model.ts";
import { release } from "../release.ts";
import { decomposeLayer, type DenseMatrix, hosvd, truncatedSvd } from "../tucker/mod.ts";
import { ahead } from "./ahead.ts";
import { encodeFactorFile, type FactorFile, writeAtomically } from "./factor_file.ts";
import { slicedLayer } from "./full_hosvd.ts";
import { toFactorFile } from "./layer_file.ts";
import { ChildCommand, type ChildEvent, type MatrixTask, type SingularValuesTask, type Task } from "./layer_task.ts";
import { feedForwardMatrix } from "./matrices.ts";
import { toMatrixFile, toSingularValuesFile } from "./matrix_file.ts";
import { tablesOfModes } from "./mode_tables.ts";
import { OpsSource } from "./ops_source.ts";
import { toSpectrumFile } from "./spectrum_file.ts";
import { attentionMatrix, singularValues, truncateAttention } from "./truncate.ts";

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

/** What a task is done with. */
interface Means {
  readonly source: OpsSource;
  /** The file of the full HOSVD that a layer is sliced from. */
  readonly full: string | null;
  /** Lets the next task begin, once this one's weights are on a GPU. */
  readonly next: () => void;
}

/** The file that a task asks for. */
async function perform(loaded: Loaded, task: Task, { source, full, next }: Means): Promise<FactorFile> {
  const block = blockOf(loaded, task.layer);
  const where = { layer: block.layer, name: block.name };
  switch (task.task) {
    case "layer": {
      using extracted = extractWeights(loaded.model, block);
      if (full !== null) {
        return toFactorFile(
          await slicedLayer(task, { path: full, weights: () => extracted.weights, ops: source, where }),
        );
      }
      const { weights } = extracted;
      const { value, ops } = await source.use((ops) =>
        task.matrixRanks === undefined
          ? decomposeLayer(weights, {
            ...task,
            where,
            onCopied: () => extracted.forget(),
            onUploaded: ops.backend === "webgpu" ? next : undefined,
          }, ops)
          : truncateAttention(weights, { ranks: task.matrixRanks, where }, ops)
      );
      return toFactorFile({ decomposition: value, ...ops });
    }
    case "matrix": {
      const started = performance.now();
      using matrix = matrixOf(loaded, task);
      const { value, ops } = await source.use((ops) =>
        truncatedSvd(matrix, { rank: task.rank, where: { ...where, matrix: task.matrix } }, ops)
      );
      return toMatrixFile({ ...value, ...ops, seconds: (performance.now() - started) / 1000 });
    }
    case "spectrum": {
      using extracted = extractWeights(loaded.model, block);
      const { weights } = extracted;
      const { value: { layer, modes } } = await source.use(async (ops) => ({
        layer: await hosvd(weights, { layout: task.layout, balance: task.balance, where }, ops),
        modes: task.allModes ? await tablesOfModes(weights, { ...task, where }, ops) : undefined,
      }));
      return toSpectrumFile(layer, modes);
    }
    case "singular-values": {
      const place = `layer ${block.layer} (${block.name}), ${task.matrix}`;
      using matrix = matrixOf(loaded, task);
      return toSingularValuesFile(await singularValues(matrix, place));
    }
  }
}

/** A matrix by name; disposing it gives its memory back. */
function matrixOf(
  loaded: Loaded,
  { layer, index, matrix }: MatrixTask | SingularValuesTask,
): DenseMatrix & Disposable {
  const name = MATRICES.find((name) => name === matrix);
  if (name !== undefined) {
    const extracted = extractWeights(loaded.model, blockOf(loaded, layer));
    const dispose = (): void => extracted[Symbol.dispose]();
    return { ...attentionMatrix(extracted.weights, name), [Symbol.dispose]: dispose };
  }
  const place = { layer, index, matrix: matrix as FeedForwardMatrixName };
  const { rows, columns } = feedForwardMatrix(findFeedForward(loaded.model), place);
  const { data, owned } = extractFeedForward(loaded.model, place);
  const dispose = (): void => owned ? release(data) : undefined;
  return { data, shape: [rows, columns], [Symbol.dispose]: dispose };
}

/** Rows and columns of the matrices that a task is about, those of an attention side by side. */
function sizesOf(loaded: Loaded, { layer }: Task): [number, number] {
  const { hiddenSize, headSize, heads } = blockOf(loaded, layer);
  return [hiddenSize, headSize * heads * MATRICES.length];
}

async function load(graphPath: string): Promise<Loaded> {
  const model = await loadModel(graphPath);
  return { model, found: findAttention(model) };
}

async function serve(graphPath: string): Promise<void> {
  let loaded: Loaded | undefined;
  using source = new OpsSource();
  const lines: ReadableStream<string> = Deno.stdin.readable
    .pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
  for await (const line of lines) {
    const command = ChildCommand.parse(JSON.parse(line));
    try {
      const model = loaded ??= await load(graphPath);
      await source.open(command.device, sizesOf(model, command.tasks[0]!));
      const results = ahead(
        [...command.tasks.entries()],
        ([index, task], next) => perform(model, task, { source, full: command.full[index] ?? null, next }),
      );
      let index = 0;
      for await (const result of results) {
        const file = command.files[index]!;
        const bytes = encodeFactorFile(result);
        release(...Object.values(result.tensors).map(({ data }) => data));
        await writeAtomically(file, bytes);
        release(bytes);
        tell({ event: "task", id: command.id, index: index++ });
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
