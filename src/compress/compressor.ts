/**
 * Load → find → decompose → rewrite → artifact, for one model whose ranks change again and again. Finding happens once; the
 * rewritten graph is made once for each structure; decomposed layers come from the store or from the child process.
 *
 * @module
 */
import { type FeedForwardBlock, findFeedForward } from "../attention/feed_forward/mod.ts";
import { type AttentionBlock, type AttentionOperator, findAttention, type FoundAttention } from "../attention/mod.ts";
import { TuckerdError } from "../errors.ts";
import { loadModel, type OnnxModel } from "../onnx/model.ts";
import { parseLayers } from "../tucker/mod.ts";
import type { CompressedModel, CompressionReport } from "./artifact.ts";
import type { CacheKind } from "./block_form.ts";
import { chooseTasks, type ChosenTasks } from "./choose.ts";
import { type CompressedLayer, type CompressedMatrix, compressedMatrix, type Decomposed } from "./decomposed.ts";
import type { FactorFile } from "./factor_file.ts";
import { GraphMaker, type WrittenGraph } from "./graphs.ts";
import { fromFactorFile, type StoredLayer } from "./layer_file.ts";
import type { KeptTask, LayerTask, MatrixTask } from "./layer_task.ts";
import { fromMatrixFile, type StoredMatrix } from "./matrix_file.ts";
import type { ModelFolder } from "./model_folder.ts";
import type { CompressionOptions } from "./options.ts";
import { type LayerPlan, planLayers } from "./plan.ts";
import { type CompressionPreview, previewOf } from "./preview.ts";
import { LayerProgress } from "./progress.ts";
import { makeReport, type ReportSources } from "./report.ts";
import { resultKeys } from "./result_keys.ts";
import { sketched } from "./sketch.ts";
import type { LayerSpectrum } from "./spectrum_file.ts";
import { spectrumSource } from "./spectrum_source.ts";
import { TaskRunner, type TaskRunnerOptions } from "./task_runner.ts";
import { graphSource } from "./weight_files.ts";

/** What a compressor works with. */
export interface CompressorOptions extends TaskRunnerOptions {
  /** Names results by the weights themselves, so that graphs with the same layers share them; reads all weights once. */
  readonly sharesLayers?: boolean;
}

/** How one compression runs. */
export interface CompressRun {
  readonly signal?: AbortSignal;
  /** Called once, with the number of layers in which something will be decomposed. */
  readonly onBegin?: (layers: number) => void;
  readonly onLayer?: (done: LayerDone) => void;
}

/** A layer in which everything is decomposed. */
export interface LayerDone {
  readonly layer: number;
  readonly name: string;
  /** Of its attention; where only feed-forward matrices are truncated, the largest of theirs. */
  readonly relativeError: number;
}

/** One layer with its spectrum. */
export interface SpectrumOfLayer {
  readonly block: AttentionBlock;
  readonly spectrum: LayerSpectrum;
}

/** Compresses one model at any ranks. */
export class Compressor {
  readonly folder: ModelFolder;
  readonly #model: OnnxModel;
  readonly #found: FoundAttention;
  readonly #feedForward: readonly FeedForwardBlock[];
  readonly #runner: TaskRunner;
  readonly #graphs: GraphMaker;

  private constructor(
    folder: ModelFolder,
    loaded: { readonly model: OnnxModel; readonly found: FoundAttention; readonly keyOf: (task: KeptTask) => string },
    options: CompressorOptions,
  ) {
    this.folder = folder;
    this.#model = loaded.model;
    this.#found = loaded.found;
    this.#feedForward = findFeedForward(loaded.model);
    this.#runner = new TaskRunner(loaded.keyOf, options);
    this.#graphs = new GraphMaker(loaded.model, (model) => graphSource(model, () => options.store.scratchFolder()));
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
        { fields: { skipped: found.skipped, operators: found.operators } },
      );
    }
    return new Compressor(folder, { model, found, keyOf: await resultKeys({ model, found }, options) }, options);
  }

  /** Every softmax and attention operator of the graph, and what became of it. */
  get operators(): readonly AttentionOperator[] {
    return this.#found.operators;
  }

  /** The attention blocks, by layer. */
  get blocks(): readonly AttentionBlock[] {
    return this.#found.blocks;
  }

  /** The feed-forward networks, by layer. */
  get feedForward(): readonly FeedForwardBlock[] {
    return this.#feedForward;
  }

  /**
   * Plans a compression without running it, to refuse early what can't be met.
   *
   * @throws TuckerdError `invalid`
   */
  plan(options: CompressionOptions): readonly LayerPlan[] {
    return planLayers(this.blocks, this.#feedForward, options);
  }

  /**
   * Compresses with the factors as graph inputs (layout `heads`), so that one session serves every rank; with layout
   * `reference`, which can't run factored, as a dense reconstruction.
   *
   * @throws TuckerdError `invalid`, `failed`, `cancelled`
   */
  async compress(options: CompressionOptions, run: CompressRun = {}): Promise<CompressedModel> {
    const started = performance.now();
    const decomposed = await this.decompose(options, run);
    const execution = options.layout === "reference" && decomposed.layers.length > 0 ? "dense" : "factored";
    const { structure, graph, feeds, ...written } = execution === "dense"
      ? await this.#graphs.servingDense(decomposed)
      : await this.#graphs.serving(decomposed);
    const seconds = (performance.now() - started) / 1000;
    const report = this.report({ options, decomposed, execution, written, feeds, seconds });
    return { report, structure, graph, feeds };
  }

  /** Decomposes what the options ask for; what is in the store is taken from it. */
  async decompose(options: CompressionOptions, run: CompressRun = {}): Promise<Decomposed> {
    const { layers, matrices } = await this.#tasks(this.plan(options), options, run.signal);
    const tasks = this.blocks.flatMap(({ layer }): (LayerTask | MatrixTask)[] => [
      ...layers.filter((task) => task.layer === layer),
      ...matrices.filter((task) => task.layer === layer),
    ]);
    const progress = new LayerProgress(
      tasks,
      (layer, relativeError) => run.onLayer?.({ layer, name: this.blocks[layer]!.name, relativeError }),
    );
    run.onBegin?.(progress.layers);
    const results = await this.#runner.run(tasks, {
      signal: run.signal,
      decode: (task, file, where): Result =>
        task.task === "layer" ? this.#layer(task, file, where) : this.#matrix(task, file, where),
      onResult: (task, result) =>
        progress.done(
          task,
          result.kind === "layer" ? result.stored.decomposition.relativeError : result.stored.relativeError,
        ),
    });
    return {
      layers: results.flatMap((result): CompressedLayer[] =>
        result.kind === "layer" ? [{ block: this.blocks[result.task.layer]!, ...result }] : []
      ),
      matrices: results.flatMap((result): CompressedMatrix[] =>
        result.kind === "matrix" ? [compressedMatrix(this.#feedForward, result)] : []
      ),
    };
  }

  #layer(task: LayerTask, file: FactorFile, where: string): Result {
    const stored = sketched(fromFactorFile(file, where));
    const load = (): Promise<StoredLayer> =>
      this.#runner.read(task, (_task, file, where) => fromFactorFile(file, where));
    return { kind: "layer", task, stored, load };
  }

  #matrix(task: MatrixTask, file: FactorFile, where: string): Result {
    const stored = sketched(fromMatrixFile(file, where));
    const load = (): Promise<StoredMatrix> =>
      this.#runner.read(task, (_task, file, where) => fromMatrixFile(file, where));
    return { kind: "matrix", task, stored, load };
  }

  /** The graph with factors as initializers: a file that any ONNX Runtime runs. */
  async withFactors(decomposed: Decomposed, cache: CacheKind): Promise<WrittenGraph> {
    return await this.#graphs.withFactors(decomposed, cache);
  }

  /** The graph with dense reconstructions in place of the decomposed weights. */
  async withReconstructions(decomposed: Decomposed): Promise<WrittenGraph> {
    return await this.#graphs.withReconstructions(decomposed);
  }

  /** The report of a compression of this model. */
  report(sources: Omit<ReportSources, "folder" | "found" | "feedForward" | "original">): CompressionReport {
    const { folder } = this;
    return makeReport({
      ...sources,
      folder,
      found: this.#found,
      feedForward: this.#feedForward,
      original: this.#model,
    });
  }

  /**
   * What a compression would cost and lose, without decomposing: by each layer's HOSVD an upper bound that HOOI comes in under, by
   * singular values the very error.
   *
   * @throws TuckerdError `invalid`
   */
  async preview(options: CompressionOptions): Promise<CompressionPreview> {
    const plans = this.plan(options);
    const tasks = await this.#tasks(plans, options);
    const source = spectrumSource(this.#runner, options);
    const tensors = tasks.layers.filter(({ matrixRanks }) => matrixRanks === undefined);
    const ownFactors = tensors.some(({ mode }) => mode === "3d-tucker");
    const spectra = await source.layers(tensors.map(({ layer }) => layer), ownFactors);
    return await previewOf({
      plans,
      tasks,
      feedForward: this.#feedForward,
      spectra: new Map(tensors.map(({ layer }, i) => [layer, spectra[i]!])),
      singularValues: source.matrices,
    });
  }

  /**
   * Singular values of the chosen layers' tensors.
   *
   * @throws TuckerdError `invalid` for a layer that isn't there
   */
  async spectrum(
    options: Pick<CompressionOptions, "layout" | "balance" | "layers">,
  ): Promise<readonly SpectrumOfLayer[]> {
    const blocks = parseLayers(options.layers, this.blocks.length).map((layer) => this.blocks[layer]!);
    const spectra = await spectrumSource(this.#runner, { ...options, matrices: undefined })
      .layers(blocks.map((block) => block.layer), false);
    return blocks.map((block, i) => ({ block, spectrum: spectra[i]! }));
  }

  async #tasks(
    plans: readonly LayerPlan[],
    options: CompressionOptions,
    signal?: AbortSignal,
  ): Promise<ChosenTasks> {
    return await chooseTasks(plans, options, spectrumSource(this.#runner, options, signal));
  }
}

type Result =
  | { readonly kind: "layer" } & Pick<CompressedLayer, "task" | "stored" | "load">
  | { readonly kind: "matrix" } & Pick<CompressedMatrix, "task" | "stored" | "load">;
