/**
 * The life of one served model: it loads, compresses, answers, re-runs Tucker while it answers, and stops. The HTTP routes
 * see it as `Services`; nothing here knows HTTP.
 *
 * @module
 */
import type { AttentionBlock } from "../attention/types.ts";
import { Compressor } from "../compress/compressor.ts";
import type { CompressionReport } from "../compress/artifact.ts";
import { Decomposer } from "../compress/decomposer.ts";
import type { Device } from "../compress/layer_task.ts";
import { type ModelFolder, openModelFolder, singleGraph } from "../compress/model_folder.ts";
import { type CompressionRequest, inheritRequest, recommendedTarget, resolveOptions } from "../compress/options.ts";
import type { LayerSpectrum } from "../compress/spectrum_file.ts";
import { FactorStore } from "../compress/store.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { createExtractive, type ExtractiveAnswerer } from "../qa/extractive.ts";
import { type ModelConfig, readModelConfig } from "../qa/model_config.ts";
import { loadTokenizer, type QaTokenizer } from "../qa/tokenizer.ts";
import { createEngine } from "../runtime/engine.ts";
import { Generations, type RunGeneration } from "../runtime/generations.ts";
import type { InferenceEngine } from "../runtime/types.ts";
import { type JobProgress, Jobs } from "./jobs.ts";
import type {
  CompressionPreview,
  CompressionService,
  CompressionSpectrum,
  GenerationInfo,
  Metric,
  ModelInfo,
  QuestionAnsweringService,
  Readiness,
  Services,
} from "./services.ts";

/** What a server is started with. */
export interface ModelServerSettings {
  /** Model folder or .onnx file, or what `locate` makes one of. */
  readonly model: string;
  /** Brings the model to disk where it isn't there yet; without it `model` is a path. */
  readonly locate?: (model: string, options: LocateOptions) => Promise<LocatedModel>;
  /** The compression at start; re-runs inherit its mode, layers, layout and balance. */
  readonly compression: CompressionRequest;
  readonly device: Device;
  readonly inference: "auto" | "webgpu" | "cpu";
  /** Where factors are kept between runs; undefined for a folder that goes with the process. */
  readonly cacheFolder: string | undefined;
  /** Requests that may wait. */
  readonly queue: number;
  /** Generations held. */
  readonly generations: number;
}

/** Who is told how far a model's way to disk is, and what ends it. */
export interface LocateOptions {
  /** Told a share of the work, from 0 to 1. */
  readonly onProgress?: (share: number) => void;
  readonly signal?: AbortSignal;
}

/** A model on disk. */
export interface LocatedModel {
  /** Its folder or its .onnx file. */
  readonly path: string;
  /** Its public name, where that isn't its folder's. */
  readonly id?: string;
  /** Its graphs, where they are known; otherwise they are looked for. */
  readonly graphPaths?: readonly string[];
}

/** Everything that exists once the model is loaded. */
interface Loaded {
  readonly compressor: Compressor;
  readonly engine: InferenceEngine;
  readonly generations: Generations;
  readonly tokenizer: QaTokenizer;
  readonly config: ModelConfig;
}

/** One served model. Dispose it to stop: jobs are cancelled, processes and workers end. */
export class ModelServer implements Services, AsyncDisposable {
  readonly version: string;
  readonly startedAt = new Date();
  /** Resolves when the first generation serves; rejects with what failed. */
  readonly ready: Promise<void>;
  readonly #settings: ModelServerSettings;
  readonly #jobs = new Jobs();
  readonly #resources = new AsyncDisposableStack();
  readonly #boot = new AbortController();
  #readiness: Readiness = { state: "starting", progress: 0 };
  #loaded: Loaded | undefined;
  #answered = 0;

  /** Starts loading at once; `readiness()` tells how far it is. */
  constructor(settings: ModelServerSettings, version: string) {
    this.version = version;
    this.#settings = settings;
    this.ready = this.#start();
    this.ready.catch((error) => this.#readiness = { state: "failed", progress: 0, reason: (error as Error).message });
  }

  readiness(): Readiness {
    return this.#readiness;
  }

  model(): ModelInfo {
    const loaded = this.#serving();
    const { compressor, generations } = loaded;
    const { maxInputTokens } = extractiveOn(loaded, (inputs) => generations.use(undefined, (run) => run(inputs)));
    return {
      id: compressor.folder.id,
      architecture: compressor.folder.architecture,
      task: "question-answering",
      maxInputTokens,
    };
  }

  readonly questionAnswering: QuestionAnsweringService = {
    answer: async (question, choice) => {
      const loaded = this.#serving();
      return await loaded.generations.use(choice.generation, async (run, generation) => {
        const answers = await extractiveOn(loaded, run).answer(question);
        this.#answered++;
        return { answers, generation };
      });
    },
  };

  readonly compression: CompressionService = {
    report: (generation) => this.#serving().generations.report(generation),
    start: (request) => {
      const options = this.#resolve(request);
      this.#serving().compressor.plan(options); // what can't be met is refused before a job exists
      return Promise.resolve(
        this.#jobs.start(request, (progress, signal) => this.#compress(request, progress, signal)),
      );
    },
    job: (id) => this.#jobs.get(id),
    finished: (id) => this.#jobs.finished(id),
    cancel: (id) => this.#jobs.cancel(id),
    events: (id, signal) => this.#jobs.events(id, signal),
    preview: (request): Promise<CompressionPreview> => this.#serving().compressor.preview(this.#resolve(request)),
    spectrum: async (): Promise<CompressionSpectrum> => {
      const layers = await this.#serving().compressor.spectrum({ ...this.#resolve({}), layers: "all" });
      return { layers: layers.map(({ block, spectrum }) => toLayerSpectrum(block, spectrum)) };
    },
    generations: () => this.#generationInfos(),
    activate: (generation) => {
      this.#serving().generations.activate(generation);
      return Promise.resolve(this.#generationInfos().find((info) => info.active)!);
    },
  };

  metrics(): readonly Metric[] {
    const metrics: Metric[] = [
      gauge("ready", "1 while a generation serves.", this.#readiness.state === "ready" ? 1 : 0),
      { name: "answers_total", help: "Questions answered.", type: "counter", samples: [{ value: this.#answered }] },
    ];
    if (this.#loaded === undefined || this.#readiness.state !== "ready") return metrics;
    const { totals, generation, layers } = this.#loaded.generations.report();
    return [
      ...metrics,
      gauge("generation", "The generation that serves.", generation),
      gauge("compression_ratio", "Attention parameters over compressed ones.", totals.compressionRatio),
      {
        name: "layer_relative_error",
        help: "Relative error of each layer's tensor.",
        type: "gauge",
        samples: layers.map((layer) => ({ labels: { layer: String(layer.layer) }, value: layer.relativeError })),
      },
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#readiness = { state: "stopping", progress: 0 };
    this.#boot.abort(new TuckerdError("cancelled", "the server is stopping"));
    await this.#jobs.stop();
    await this.ready.catch(() => {}); // told to whoever waits on `ready`
    await this.#resources.disposeAsync();
  }

  async #start(): Promise<void> {
    const { model, device, cacheFolder, inference, queue, generations: keep, compression } = this.#settings;
    this.#readiness = { state: "loading", progress: 0 };
    const folder = await this.#open(model);
    const decomposer = this.#resources.use(new Decomposer(folder.graphPath));
    const store = this.#resources.use(await FactorStore.open(cacheFolder));
    const engineStart = createEngine({ provider: inference, maxPendingRuns: queue });
    const [compressor, engine, tokenizer, config] = await Promise.all([
      Compressor.open(folder, { device, store, decomposer }),
      engineStart.then((engine) => this.#resources.use(engine)),
      loadTokenizer(folder.path),
      readModelConfig(folder.path),
    ]);
    const generations = new Generations(engine, { keep });
    this.#loaded = { compressor, engine, generations, tokenizer, config };
    this.#readiness = { state: "compressing", progress: 0 };
    let done = 0;
    const total = compressor.blocks.length;
    await this.#compress(compression, {
      begin: () => {},
      layer: ({ layer, name, relativeError }) => {
        this.#readiness = { state: "compressing", progress: ++done / (total + 1) };
        log(1, `layer ${layer} ${name}: relative error ${relativeError.toPrecision(4)}`);
      },
    }, this.#boot.signal);
    this.#readiness = { state: "ready", progress: 1 };
  }

  async #open(model: string): Promise<ModelFolder> {
    const { path, id, graphPaths } = await this.#settings.locate?.(model, {
      signal: this.#boot.signal,
      onProgress: (progress) => this.#readiness = { state: "loading", progress },
    }) ?? { path: model, id: undefined, graphPaths: undefined };
    const folder = singleGraph(await openModelFolder(path, graphPaths));
    return { ...folder, id: id ?? folder.id };
  }

  /** Compresses, installs and activates a generation; throws without having changed what serves. */
  async #compress(
    request: CompressionRequest,
    progress: JobProgress,
    signal: AbortSignal,
  ): Promise<{ generation: number; report: CompressionReport }> {
    const { compressor, generations } = this.#loaded!;
    const compressed = await compressor.compress(this.#resolve(request), {
      signal,
      onBegin: progress.begin,
      onLayer: progress.layer,
    });
    signal.throwIfAborted();
    const generation = await generations.add(compressed);
    generations.activate(generation);
    return { generation, report: generations.report(generation) };
  }

  /** A request with what the server was started with filled in where it says nothing. */
  #resolve(request: CompressionRequest): ReturnType<typeof resolveOptions> {
    const recommended = recommendedTarget(this.#loaded!.compressor.folder);
    return resolveOptions(inheritRequest(this.#settings.compression, request), recommended);
  }

  #serving(): Loaded {
    if (this.#loaded === undefined || this.#readiness.state !== "ready") {
      const { state, progress } = this.#readiness;
      throw new TuckerdError("unavailable", `the model isn't ready: ${state}, ${Math.round(progress * 100)}% done`, {
        fields: { state, progress },
      });
    }
    return this.#loaded;
  }

  #generationInfos(): readonly GenerationInfo[] {
    const { generations } = this.#serving();
    return generations.list().map(({ number, report, createdAt }) => ({
      generation: number,
      active: number === generations.current,
      createdAt: createdAt.toISOString(),
      mode: report.mode,
      compressionRatio: report.totals.compressionRatio,
      meanRelativeError: report.layers.reduce((sum, layer) => sum + layer.relativeError, 0) / report.layers.length,
    }));
  }
}

function extractiveOn({ tokenizer, config, engine: { inputs } }: Loaded, run: RunGeneration): ExtractiveAnswerer {
  return createExtractive({ tokenizer, config, inputs, run });
}

function toLayerSpectrum(
  { layer, name, hiddenSize, headSize, heads }: AttentionBlock,
  { singularValues: { hidden, head, stack } }: LayerSpectrum,
): CompressionSpectrum["layers"][number] {
  return {
    layer,
    name,
    shape: [hiddenSize, headSize, 4, heads],
    singularValues: { hidden: [...hidden], head: [...head], stack: [...stack] },
  };
}

function gauge(name: string, help: string, value: number): Metric {
  return { name, help, type: "gauge", samples: [{ value }] };
}
