/**
 * Graphs that run a compression: with factors as inputs, for serving; with factors as initializers, for a file; or with dense
 * reconstructions.
 *
 * @module
 */
import {
  type FeedForwardForm,
  feedForwardKey,
  type FeedForwardSlot,
  rewriteFeedForward,
} from "../attention/feed_forward/mod.ts";
import {
  type BlockForm,
  extractWeights,
  type FactorNumbers,
  type FactorSlot,
  type LaterWeights,
  repeatsDiffer,
  repeatsHeads,
  rewriteDense,
  rewriteFactored,
  structureKey,
  withMergedOutput,
} from "../attention/mod.ts";
import type { AttentionWeights } from "../attention/types.ts";
import { externalTensors, type OnnxModel } from "../onnx/model.ts";
import { withSizes } from "../onnx/value_info.ts";
import { reconstruct } from "../tucker/mod.ts";
import type { CacheLayout, CompressedModel, FactorTensor, GraphSource } from "./artifact.ts";
import { type CacheKind, formOf } from "./block_form.ts";
import type { CompressedLayer, CompressedMatrix, Decomposed } from "./decomposed.ts";
import { cacheLayouts, type FoldedLayer, fullCache, withLatent } from "./cache_layout.ts";
import { LayerFolder, type PreparedLayer } from "./layer_folder.ts";
import { LayerTensors, type MakeLayer } from "./layer_tensors.ts";
import { networkForm, networkShape, networkTensor } from "./network_tensors.ts";
import { rankSizes } from "./rank_symbols.ts";
import { releaseNumbers } from "./sketch.ts";

/** A graph, and what each layer that was decomposed and has a cache keeps there. */
export interface WrittenGraph {
  readonly model: OnnxModel;
  readonly caches: ReadonlyMap<number, CacheLayout>;
}

/** A written graph with what the runtime needs to run it. */
export interface RunnableGraph extends WrittenGraph, Pick<CompressedModel, "structure" | "graph" | "feeds"> {}

/** A rewritten graph that takes its factors as inputs. */
interface FactoredGraph {
  readonly model: OnnxModel;
  readonly source: GraphSource;
  readonly slots: readonly FactorSlot[];
  readonly feedForwardSlots: readonly FeedForwardSlot[];
}

/** Makes the graphs of one model. Those that take factors as inputs are made once for each structure. */
export class GraphMaker {
  readonly #model: OnnxModel;
  readonly #sourceOf: (model: OnnxModel) => Promise<GraphSource>;
  readonly #graphs = new Map<string, Promise<FactoredGraph>>();
  /** Whether the model keeps weights beside its graph; else all are in memory, and so may be what takes their place. */
  readonly #external: boolean;
  readonly #turn = new LayerTensors();
  readonly #folder: LayerFolder;

  /** @param sourceOf hands a graph over to the runtime */
  constructor(model: OnnxModel, sourceOf: (model: OnnxModel) => Promise<GraphSource>) {
    this.#model = model;
    this.#sourceOf = sourceOf;
    this.#external = externalTensors(model).next().done !== true;
    this.#folder = new LayerFolder(model, this.#external ? this.#turn : undefined);
  }

  /** The graph that takes its factors as inputs, and the factors. */
  async serving({ layers, matrices }: Decomposed): Promise<RunnableGraph> {
    const forms = formsOf(layers, "full");
    const networkForms = matrices.map(networkForm);
    const structure = [structureKey(forms), feedForwardKey(networkForms)].filter((key) => key !== "").join(" ");
    const { model, source, slots, feedForwardSlots } = await this.#factored(structure, forms, networkForms);
    const feeds: Record<string, FactorTensor> = {};
    const folded: FoldedLayer[] = [];
    for (const layer of layers) {
      const { tensors, ...shapes } = await this.#folder.fold(layer, slots, forms);
      tensors.forEach((tensor, name) => feeds[name] = tensor);
      folded.push(shapes);
    }
    for (const slot of feedForwardSlots) feeds[slot.name] = await networkTensor(slot, matrices);
    return { model, structure, graph: source, feeds, caches: cacheLayouts(folded) };
  }

  /** Dense weights are part of the graph, so every reconstruction is a structure of its own. */
  async servingDense(decomposed: Decomposed): Promise<RunnableGraph> {
    const written = await this.withReconstructions(decomposed);
    const graph = await this.#sourceOf(written.model);
    return { ...written, structure: `dense ${crypto.randomUUID()}`, graph, feeds: {} };
  }

  /**
   * The graph with factors as initializers: a file that any ONNX Runtime runs. Where the model keeps its weights in external data,
   * factors are folded when the model is written, one layer at a time; before that, where ranks alone don't tell their shapes.
   */
  async withFactors({ layers, matrices }: Decomposed, cache: CacheKind): Promise<WrittenGraph> {
    const forms = formsOf(layers, cache);
    const { slots: twoSlots } = rewriteFactored(this.#model, forms, { factors: "inputs" });
    const asTwo: PreparedLayer[] = [];
    for (const layer of layers) asTwo.push(await this.#folder.prepare(layer, twoSlots, forms));
    // With the ranks at hand, products and caches take the form of fewest numbers.
    const chosen = new Map(asTwo.map((layer) => [layer.block.layer, mergedOutput(layer)]));
    const { slots } = rewriteFactored(this.#model, chosen, { factors: "inputs" });
    const folded: PreparedLayer[] = [];
    for (const [i, layer] of layers.entries()) {
      const same = chosen.get(layer.block.layer) === asTwo[i]!.form;
      folded.push(same ? asTwo[i]! : await this.#folder.prepare(layer, slots, chosen));
    }
    const prepared = cache === "compressed" ? withLatent(folded) : folded;
    const tensors = new Map(prepared.flatMap((each) => [...each.tensors]));
    const written = new Map(prepared.map(({ block, form }) => [block.layer, form]));
    const { model } = rewriteFactored(this.#model, written, {
      factors: "initializers",
      tensors: (slot) => tensors.get(slot.name)!,
    });
    const whole = await this.#withNetworks(withSizes(model, rankSizes(slots, tensors)), matrices, networkForm);
    return { model: whole, caches: cacheLayouts(prepared) };
  }

  /**
   * The graph with dense reconstructions in place of the decomposed weights; they are made as `withFactors` folds factors: where weights
   * lie in external data, when the model is written, one layer at a time.
   */
  async withReconstructions({ layers, matrices }: Decomposed): Promise<WrittenGraph> {
    const weights = new Map<number, AttentionWeights | LaterWeights>();
    for (const layer of layers) {
      weights.set(layer.block.layer, this.#external ? await this.#later(layer) : await this.#reconstructed(layer));
    }
    const model = rewriteDense(this.#model, weights);
    const written = await this.#withNetworks(model, matrices, (matrix) => ({ ...networkForm(matrix), form: "dense" }));
    const caches = layers.filter(({ block }) => block.cacheNumbersPerToken > 0).map(({ block, stored }) => {
      const { keyValueHeads } = formOf(block, stored.decomposition.factors, "full");
      return [block.layer, fullCache(block, keyValueHeads)] as const;
    });
    return { model: written, caches: new Map(caches) };
  }

  /** A layer's dense weights, in arrays of the caller's own. */
  async #reconstructed({ block, task, load }: CompressedLayer): Promise<AttentionWeights> {
    const original = extractWeights(this.#model, block).weights;
    const { decomposition } = await load();
    const weights = await reconstruct(decomposition.factors, original, task.layout);
    releaseNumbers(decomposition);
    return weights;
  }

  /** The same when the model is written. Only of grouped heads must numbers be known before. */
  async #later(layer: CompressedLayer): Promise<LaterWeights> {
    const { block } = layer;
    let ungrouped = false;
    if (repeatsHeads(this.#model, block)) {
      const weights = await this.#reconstructed(layer);
      ungrouped = repeatsDiffer(this.#model, block, weights);
      releaseNumbers(weights);
    }
    const later: LaterWeights["later"] = (tensors) => {
      const make: MakeLayer = async () => tensors(await this.#reconstructed(layer));
      return (name) => this.#turn.take(make, name);
    };
    return { ungrouped, later };
  }

  #factored(
    structure: string,
    forms: ReadonlyMap<number, BlockForm>,
    networkForms: readonly FeedForwardForm[],
  ): Promise<FactoredGraph> {
    let graph = this.#graphs.get(structure);
    if (graph === undefined) {
      graph = this.#writeFactored(forms, networkForms);
      this.#graphs.set(structure, graph);
      graph.catch(() => this.#graphs.delete(structure));
    }
    return graph;
  }

  async #writeFactored(
    forms: ReadonlyMap<number, BlockForm>,
    networkForms: readonly FeedForwardForm[],
  ): Promise<FactoredGraph> {
    const attention = rewriteFactored(this.#model, forms, { factors: "inputs" });
    const { model, slots: feedForwardSlots } = rewriteFeedForward(this.#model, attention.model, {
      forms: networkForms,
      source: { factors: "inputs" },
    });
    return { model, source: await this.#sourceOf(model), slots: attention.slots, feedForwardSlots };
  }

  /** Writes the networks' matrices into a graph as initializers. */
  async #withNetworks(
    target: OnnxModel,
    matrices: readonly CompressedMatrix[],
    formFor: (matrix: CompressedMatrix) => FeedForwardForm,
  ): Promise<OnnxModel> {
    const forms = matrices.map(formFor);
    const tensors = new Map<string, FactorNumbers>();
    const { slots } = rewriteFeedForward(this.#model, target, { forms, source: { factors: "inputs" } });
    for (const slot of slots) {
      const waits = {
        shape: networkShape(slot, matrices),
        data: async () => (await networkTensor(slot, matrices)).data,
      };
      tensors.set(slot.name, this.#external ? waits : await networkTensor(slot, matrices));
    }
    return rewriteFeedForward(this.#model, target, {
      forms,
      source: { factors: "initializers", tensors: ({ name }) => tensors.get(name)! },
    }).model;
  }
}

/** The layer's form, with its two output matrices multiplied where that makes them no larger. */
function mergedOutput({ block, form, slots, shapes }: FoldedLayer): BlockForm {
  const slot = slots.find(({ role }) => role === "output.a");
  return slot === undefined
    ? form
    : withMergedOutput(form, shapes.get(slot.name)! as [number, number], block.hiddenSize);
}

function formsOf(layers: readonly CompressedLayer[], cache: CacheKind): ReadonlyMap<number, BlockForm> {
  return new Map(layers.map(({ block, stored }) => [block.layer, formOf(block, stored.decomposition.factors, cache)]));
}
