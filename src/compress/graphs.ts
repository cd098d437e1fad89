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
  type AttentionBlock,
  type BlockForm,
  chooseForm,
  extractWeights,
  type FactorSlot,
  rewriteDense,
  rewriteFactored,
  structureKey,
  withMergedOutput,
} from "../attention/mod.ts";
import { type AttentionWeights, MATRICES, type MatrixName } from "../attention/types.ts";
import { matmul } from "../linalg/mod.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { withSizes } from "../onnx/value_info.ts";
import { foldFactors, lowRankSaves, reconstruct } from "../tucker/mod.ts";
import type { LayerFactors } from "../tucker/types.ts";
import type { CacheLayout, CompressedModel, FactorTensor, GraphSource } from "./artifact.ts";
import type { CompressedLayer, CompressedMatrix, Decomposed } from "./decomposed.ts";
import { cacheLayout, type FoldedLayer, fullCache, withLatent } from "./cache_layout.ts";
import { storedShape } from "./matrices.ts";

/**
 * How a decoder's cache is kept: in the model's own shapes (`full`), in r2 numbers per head (`per-head`), or layer by layer as
 * the smaller of that and the latent z (`compressed`).
 */
export type CacheKind = "full" | "per-head" | "compressed";

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

  /** @param sourceOf hands a graph over to the runtime */
  constructor(model: OnnxModel, sourceOf: (model: OnnxModel) => Promise<GraphSource>) {
    this.#model = model;
    this.#sourceOf = sourceOf;
  }

  /** The graph that takes its factors as inputs, and the factors. */
  async serving({ layers, matrices }: Decomposed): Promise<RunnableGraph> {
    const forms = formsOf(layers, "full");
    const networkForms = matrices.map(networkForm);
    const structure = [structureKey(forms), feedForwardKey(networkForms)].filter((key) => key !== "").join(" ");
    const { model, source, slots, feedForwardSlots } = await this.#factored(structure, forms, networkForms);
    const feeds: Record<string, FactorTensor> = {};
    const folded = layers.map((layer) => this.#fold(layer, slots, forms));
    for (const { tensors } of folded) tensors.forEach((tensor, name) => feeds[name] = tensor);
    for (const slot of feedForwardSlots) feeds[slot.name] = await networkTensor(slot, matrices);
    return { model, structure, graph: source, feeds, caches: cachesOf(folded) };
  }

  /** Dense weights are part of the graph, so every reconstruction is a structure of its own. */
  async servingDense(decomposed: Decomposed): Promise<RunnableGraph> {
    const written = await this.withReconstructions(decomposed);
    const graph = await this.#sourceOf(written.model);
    return { ...written, structure: `dense ${crypto.randomUUID()}`, graph, feeds: {} };
  }

  /** The graph with factors as initializers: a file that any ONNX Runtime runs. */
  async withFactors({ layers, matrices }: Decomposed, cache: CacheKind): Promise<WrittenGraph> {
    const forms = formsOf(layers, cache);
    const { slots: twoSlots } = rewriteFactored(this.#model, forms, { factors: "inputs" });
    const asTwo = layers.map((layer) => this.#fold(layer, twoSlots, forms));
    // With the ranks at hand, products and caches take the form of fewest numbers.
    const chosen = new Map(asTwo.map((layer) => [layer.block.layer, mergedOutput(layer)]));
    const { slots } = rewriteFactored(this.#model, chosen, { factors: "inputs" });
    const folded = layers.map((layer, i) => {
      const same = chosen.get(layer.block.layer) === asTwo[i]!.form;
      const made = same ? asTwo[i]! : this.#fold(layer, slots, chosen);
      return cache === "compressed" ? withLatent(made) : made;
    });
    const tensors = new Map(folded.flatMap((each) => [...each.tensors]));
    const written = new Map(folded.map(({ block, form }) => [block.layer, form]));
    const { model } = rewriteFactored(this.#model, written, {
      factors: "initializers",
      tensors: (slot) => tensors.get(slot.name)!,
    });
    const whole = await this.#withNetworks(withSizes(model, rankSizes(slots, tensors)), matrices, networkForm);
    return { model: whole, caches: cachesOf(folded) };
  }

  /** The graph with dense reconstructions in place of the decomposed weights. */
  async withReconstructions({ layers, matrices }: Decomposed): Promise<WrittenGraph> {
    const weights = new Map<number, AttentionWeights>();
    for (const { block, stored, task } of layers) {
      const original = extractWeights(this.#model, block).weights;
      weights.set(block.layer, await reconstruct(stored.decomposition.factors, original, task.layout));
    }
    const model = rewriteDense(this.#model, weights);
    const written = await this.#withNetworks(model, matrices, (matrix) => ({ ...networkForm(matrix), form: "dense" }));
    const caches = layers.filter(({ block }) => block.cacheNumbersPerToken > 0).map(({ block, stored }) => {
      const { keyValueHeads } = formOf(block, stored.decomposition.factors, "full");
      return [block.layer, fullCache(block, keyValueHeads)] as const;
    });
    return { model: written, caches: new Map(caches) };
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
    const tensors = new Map<string, FactorTensor>();
    const { slots } = rewriteFeedForward(this.#model, target, { forms, source: { factors: "inputs" } });
    for (const slot of slots) tensors.set(slot.name, await networkTensor(slot, matrices));
    return rewriteFeedForward(this.#model, target, {
      forms,
      source: { factors: "initializers", tensors: ({ name }) => tensors.get(name)! },
    }).model;
  }

  #fold(
    { block, stored }: CompressedLayer,
    slots: readonly FactorSlot[],
    forms: ReadonlyMap<number, BlockForm>,
  ): FoldedLayer {
    const { factors } = stored.decomposition;
    const { weights, biases } = extractWeights(this.#model, block);
    const own = slots.filter((slot) => slot.layer === block.layer);
    const form = forms.get(block.layer)!;
    return { block, form, slots: own, tensors: foldFactors(factors, biases, weights, form, own) };
  }
}

/** The layer's form, with its two output matrices multiplied where that makes them no larger. */
function mergedOutput({ block, form, slots, tensors }: FoldedLayer): BlockForm {
  const slot = slots.find(({ role }) => role === "output.a");
  return slot === undefined
    ? form
    : withMergedOutput(form, tensors.get(slot.name)!.shape as [number, number], block.hiddenSize);
}

/** The ranks that slots name (`layer0.key.r2`, or `4*layer0.key.r2`), as the tensors have them: a file's caches are of fixed sizes. */
function rankSizes(
  slots: readonly FactorSlot[],
  tensors: ReadonlyMap<string, FactorTensor>,
): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const { name, shape } of slots) {
    for (const [axis, size] of shape.entries()) {
      const [, count = "1", rank] = /^(?:(\d+)\*)?(.+)$/.exec(String(size)) ?? [];
      if (typeof size === "string") sizes.set(rank!, tensors.get(name)!.shape[axis]! / Number(count));
    }
  }
  return sizes;
}

function cachesOf(folded: readonly FoldedLayer[]): ReadonlyMap<number, CacheLayout> {
  return new Map(
    folded.filter(({ block }) => block.cacheNumbersPerToken > 0).map((
      layer,
    ) => [layer.block.layer, cacheLayout(layer)]),
  );
}

function formsOf(layers: readonly CompressedLayer[], cache: CacheKind): ReadonlyMap<number, BlockForm> {
  return new Map(layers.map(({ block, stored }) => [block.layer, formOf(block, stored.decomposition.factors, cache)]));
}

/** How a block runs with these factors: a truncated matrix as one where two would be larger. */
function formOf(block: AttentionBlock, factors: LayerFactors, kind: CacheKind): BlockForm {
  const cache = kind === "full" ? "full" : "compressed";
  if (factors.kind === "tucker4") return chooseForm(block, factors.kind, { r3: factors.factors.ranks[2], cache });
  const matrices = Object.keys(factors.matrices) as MatrixName[];
  const form = chooseForm(block, factors.kind, { matrices, cache });
  if (factors.kind === "tucker3") return form;
  const dense = MATRICES.filter((name) => {
    const truncated = factors.matrices[name];
    return truncated !== undefined && !lowRankSaves(storedShape(block, name), truncated.rank);
  });
  return { ...form, ...Object.fromEntries(dense.map((name) => [name, "dense"])) };
}

function networkForm({ task: { layer, index, matrix }, execution }: CompressedMatrix): FeedForwardForm {
  return { layer, index, matrix, form: execution === "factored" ? "pair" : "dense" };
}

/** What a slot of a network takes. */
async function networkTensor(
  { layer, index, matrix, part }: FeedForwardSlot,
  matrices: readonly CompressedMatrix[],
): Promise<FactorTensor> {
  const { shape: [m, n], stored: { factors: { left, right, rank } } } = matrices.find(({ task }) =>
    task.layer === layer && task.index === index && task.matrix === matrix
  )!;
  if (part === "a") return { shape: [m, rank], data: left };
  if (part === "b") return { shape: [rank, n], data: right };
  const product = await matmul(new Float64Array(left), new Float64Array(right), { m, k: rank, n });
  return { shape: [m, n], data: Float32Array.from(product) };
}
