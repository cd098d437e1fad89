/**
 * Load → find → decompose → rewrite → artifact, for one model whose ranks change again and again. Finding happens once; the
 * rewritten graph is made once for each structure; decomposed layers come from the store or from the child process.
 *
 * @module
 */
import {
  type AttentionBlock,
  type BlockForm,
  chooseForm,
  extractWeights,
  type FactorSlot,
  findAttention,
  type FoundAttention,
  rewriteDense,
  rewriteFactored,
  structureKey,
} from "../attention/mod.ts";
import type { AttentionWeights, MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { encodeModel, loadModel, type OnnxModel } from "../onnx/model.ts";
import { foldFactors, reconstruct } from "../tucker/mod.ts";
import type { LayerFactors } from "../tucker/types.ts";
import type { CompressedModel, CompressionReport, FactorTensor, GraphSource } from "./artifact.ts";
import { chooseLayerTasks } from "./choose.ts";
import type { Decomposer, DecomposerCommand } from "./decomposer.ts";
import type { FactorFile } from "./factor_file.ts";
import { fromFactorFile, type StoredLayer } from "./layer_file.ts";
import { type Device, type LayerTask, type SpectrumTask, taskKey } from "./layer_task.ts";
import { digestFiles, type ModelFolder } from "./model_folder.ts";
import type { CompressionOptions } from "./options.ts";
import { type LayerPlan, planLayers } from "./plan.ts";
import { makeReport, type ReportSources } from "./report.ts";
import { type CompressionPreview, previewOf } from "./preview.ts";
import { fromSpectrumFile, type LayerSpectrum } from "./spectrum_file.ts";
import type { FactorStore } from "./store.ts";
import { externalFiles } from "./weight_files.ts";

/** What a compressor works with. */
export interface CompressorOptions {
  readonly device: Device;
  readonly store: FactorStore;
  readonly decomposer: Decomposer;
}

/** A layer that was decomposed. */
export interface LayerDone {
  readonly layer: number;
  readonly name: string;
  readonly relativeError: number;
}

/** How one compression runs. */
export interface CompressRun {
  readonly signal?: AbortSignal;
  /** Called once, with the number of layers that will be decomposed. */
  readonly onBegin?: (layers: number) => void;
  readonly onLayer?: (done: LayerDone) => void;
}

/** One layer with its decomposition. */
export interface CompressedLayer {
  readonly block: AttentionBlock;
  readonly task: LayerTask;
  readonly stored: StoredLayer;
}

/** One layer with its spectrum. */
export interface SpectrumOfLayer {
  readonly block: AttentionBlock;
  readonly spectrum: LayerSpectrum;
}

/** A rewritten graph that takes its factors as inputs. */
interface FactoredGraph {
  readonly model: OnnxModel;
  readonly source: GraphSource;
  readonly slots: readonly FactorSlot[];
}

interface RunnableGraph extends Pick<CompressedModel, "structure" | "graph" | "feeds"> {
  readonly model: OnnxModel;
}

/** Compresses one model at any ranks. */
export class Compressor {
  readonly folder: ModelFolder;
  readonly #model: OnnxModel;
  readonly #found: FoundAttention;
  readonly #digest: string;
  readonly #options: CompressorOptions;
  readonly #graphs = new Map<string, FactoredGraph>();

  private constructor(
    folder: ModelFolder,
    loaded: { readonly model: OnnxModel; readonly found: FoundAttention; readonly digest: string },
    options: CompressorOptions,
  ) {
    this.folder = folder;
    this.#model = loaded.model;
    this.#found = loaded.found;
    this.#digest = loaded.digest;
    this.#options = options;
  }

  /**
   * Loads a model and finds its attention.
   *
   * @throws TuckerdError `bad-model` (the file can't be read), `unsupported` (no attention in it that can be compressed)
   */
  static async open(folder: ModelFolder, options: CompressorOptions): Promise<Compressor> {
    const model = await loadModel(folder.graphPath);
    const found = findAttention(model);
    if (found.blocks.length === 0) {
      const reasons = found.skipped.map(({ node, operator, reason }) => `${operator} ${node}: ${reason}`);
      throw new TuckerdError(
        "unsupported",
        `no attention block in ${folder.graphPath} can be compressed: ` +
          (reasons.length === 0 ? "the graph has neither a Softmax nor an attention operator" : reasons.join("; ")),
        { fields: { skipped: found.skipped } },
      );
    }
    const digest = await digestFiles([folder.graphPath, ...externalFiles(model)]);
    return new Compressor(folder, { model, found, digest }, options);
  }

  /** The attention blocks, by layer. */
  get blocks(): readonly AttentionBlock[] {
    return this.#found.blocks;
  }

  /**
   * Plans a compression without running it, to refuse early what can't be met.
   *
   * @throws TuckerdError `invalid`
   */
  plan(options: CompressionOptions): readonly LayerPlan[] {
    return planLayers(this.blocks, options);
  }

  /**
   * Compresses with the factors as graph inputs (layout `heads`), so that one session serves every rank; with layout
   * `reference`, which can't run factored, as a dense reconstruction.
   *
   * @throws TuckerdError `invalid`, `failed`, `cancelled`
   */
  async compress(options: CompressionOptions, run: CompressRun = {}): Promise<CompressedModel> {
    const started = performance.now();
    const layers = await this.decompose(options, run);
    const execution = options.layout === "reference" && layers.length > 0 ? "dense" : "factored";
    const { model, structure, graph, feeds } = execution === "dense"
      ? await this.#dense(layers)
      : this.#factored(layers);
    const seconds = (performance.now() - started) / 1000;
    const report = this.report({ options, layers, execution, rewritten: model, feeds, seconds });
    return { report, structure, graph, feeds };
  }

  /** Decomposes what the options ask for; layers in the store are read from it. */
  async decompose(options: CompressionOptions, run: CompressRun = {}): Promise<readonly CompressedLayer[]> {
    const tasks = await this.#tasks(options, run.signal);
    run.onBegin?.(tasks.length);
    const stored = await this.#stored(tasks, run);
    return tasks.map((task, i) => ({ block: this.#block(task.layer), task, stored: stored[i]! }));
  }

  /** The graph with factors as initializers: a file that any ONNX Runtime runs. */
  withFactors(layers: readonly CompressedLayer[]): OnnxModel {
    const folded = new Map<string, FactorTensor>();
    const { slots } = rewriteFactored(this.#model, formsOf(layers), { factors: "inputs" });
    for (const layer of layers) this.#fold(layer, slots).forEach((tensor, name) => folded.set(name, tensor));
    return rewriteFactored(this.#model, formsOf(layers), {
      factors: "initializers",
      tensors: (slot) => folded.get(slot.name)!,
    }).model;
  }

  /** The graph with dense reconstructions in place of the decomposed layers' weights. */
  async withReconstructions(layers: readonly CompressedLayer[]): Promise<OnnxModel> {
    const weights = new Map<number, AttentionWeights>();
    for (const { block, stored, task } of layers) {
      const original = extractWeights(this.#model, block).weights;
      weights.set(block.layer, await reconstruct(stored.decomposition.factors, original, task.layout));
    }
    return rewriteDense(this.#model, weights);
  }

  /** The report of a compression of this model. */
  report(sources: Omit<ReportSources, "folder" | "found" | "original">): CompressionReport {
    return makeReport({ ...sources, folder: this.folder, found: this.#found, original: this.#model });
  }

  #factored(layers: readonly CompressedLayer[]): RunnableGraph {
    const forms = formsOf(layers);
    const structure = structureKey(forms);
    let graph = this.#graphs.get(structure);
    if (graph === undefined) {
      const { model, slots } = rewriteFactored(this.#model, forms, { factors: "inputs" });
      graph = { model, slots, source: this.#sourceOf(model) };
      this.#graphs.set(structure, graph);
    }
    const feeds: Record<string, FactorTensor> = {};
    for (const layer of layers) this.#fold(layer, graph.slots).forEach((tensor, name) => feeds[name] = tensor);
    return { model: graph.model, structure, graph: graph.source, feeds };
  }

  /** Dense weights are part of the graph, so every reconstruction is a structure of its own. */
  async #dense(layers: readonly CompressedLayer[]): Promise<RunnableGraph> {
    const model = await this.withReconstructions(layers);
    return { model, structure: `dense ${crypto.randomUUID()}`, graph: this.#sourceOf(model), feeds: {} };
  }

  #fold({ block, stored }: CompressedLayer, slots: readonly FactorSlot[]): Map<string, FactorTensor> {
    const { factors } = stored.decomposition;
    const { weights, biases } = extractWeights(this.#model, block);
    const own = slots.filter((slot) => slot.layer === block.layer);
    return foldFactors(factors, biases, weights, formOf(block, factors), own);
  }

  #sourceOf(model: OnnxModel): GraphSource {
    return { bytes: encodeModel(model) };
  }

  #block(layer: number): AttentionBlock {
    return this.blocks[layer]!;
  }

  /** Decomposed layers from the store, those that it lacks through the child process. */
  async #stored(tasks: readonly LayerTask[], run: Omit<CompressRun, "onBegin">): Promise<readonly StoredLayer[]> {
    return await this.#results("decompose", tasks, {
      ...run,
      decode: fromFactorFile,
      onResult: (task, { decomposition: { relativeError } }) =>
        run.onLayer?.({ layer: task.layer, name: this.#block(task.layer).name, relativeError }),
    });
  }

  /** What ranks would cost and lose, without decomposing: from each layer's HOSVD, an upper bound that HOOI comes in under. */
  async preview(options: CompressionOptions): Promise<CompressionPreview> {
    const plans = this.plan(options);
    const spectra = await this.#spectra(plans.map(({ block }) => block.layer), { ...options, allModes: false });
    return previewOf(plans, await this.#tasks(options), spectra);
  }

  /** Singular values of every layer's tensor. */
  async spectrum(options: Pick<CompressionOptions, "layout" | "balance">): Promise<readonly SpectrumOfLayer[]> {
    const spectra = await this.#spectra(this.blocks.map((block) => block.layer), { ...options, allModes: false });
    return this.blocks.map((block, i) => ({ block, spectrum: spectra[i]! }));
  }

  async #tasks(options: CompressionOptions, signal?: AbortSignal): Promise<readonly LayerTask[]> {
    return await chooseLayerTasks(
      this.plan(options),
      options,
      (layers, allModes) => this.#spectra(layers, { ...options, allModes }, signal),
    );
  }

  async #spectra(
    layers: readonly number[],
    { layout, balance, allModes }: Omit<SpectrumTask, "layer">,
    signal?: AbortSignal,
  ): Promise<readonly LayerSpectrum[]> {
    const tasks = layers.map((layer): SpectrumTask => ({ layer, layout, balance, allModes }));
    return await this.#results("spectrum", tasks, {
      ...(signal === undefined ? {} : { signal }),
      decode: fromSpectrumFile,
    });
  }

  /** Reads each task's result; what isn't in the store is computed first. */
  async #results<T extends LayerTask | SpectrumTask, R>(
    command: "decompose" | "spectrum",
    tasks: readonly T[],
    { signal, decode, onResult }: {
      readonly signal?: AbortSignal;
      readonly decode: (file: FactorFile, where: string) => R;
      readonly onResult?: (task: T, result: R) => void;
    },
  ): Promise<readonly R[]> {
    const { store, decomposer, device } = this.#options;
    const keys = tasks.map((task) => taskKey(this.#digest, device, task));
    const results = new Map<number, R>();
    const read = async (index: number): Promise<boolean> => {
      const file = await store.read(keys[index]!);
      if (file === undefined) return false;
      const result = decode(file, store.path(keys[index]!));
      results.set(index, result);
      onResult?.(tasks[index]!, result);
      return true;
    };
    const missing: number[] = [];
    for (const index of tasks.keys()) if (!await read(index)) missing.push(index);
    if (missing.length > 0) {
      const reads: Promise<boolean>[] = [];
      await decomposer.run({
        command,
        device,
        tasks: missing.map((index) => tasks[index]!),
        files: missing.map((index) => store.path(keys[index]!)),
      } as DecomposerCommand, {
        ...(signal === undefined ? {} : { signal }),
        onTask: (done) => reads.push(read(missing[done]!)),
      });
      await Promise.all(reads);
    }
    return tasks.map((task, index) => {
      const result = results.get(index);
      if (result === undefined) {
        throw new TuckerdError(
          "failed",
          `the decomposition of layer ${task.layer} was not in the store after it was written`,
        );
      }
      return result;
    });
  }
}

function formsOf(layers: readonly CompressedLayer[]): ReadonlyMap<number, BlockForm> {
  return new Map(layers.map(({ block, stored }) => [block.layer, formOf(block, stored.decomposition.factors)]));
}

/** How a block runs with these factors. */
function formOf(block: AttentionBlock, factors: LayerFactors): BlockForm {
  if (factors.kind === "tucker4") return chooseForm(block, factors.kind, { r3: factors.factors.ranks[2] });
  return chooseForm(block, factors.kind, { matrices: Object.keys(factors.matrices) as MatrixName[] });
}
