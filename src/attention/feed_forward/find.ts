/**
 * Finds feed-forward networks: a linear d→m, element-wise operators (bias, activation, gate, dropout, casts), a linear m→d.
 *
 *     x → fc_in → + bias → activation ─┬→ fc_out
 *     x → fc_up ───────────────── × ───┘        (gated networks)
 *
 * Followed backwards from fc_out: whatever its input is made of must be constants and one or two projections of one stream.
 * So a residual, a norm or a head's pooling between two linear layers means that they aren't such a network, and neither are two linear
 * layers without anything non-linear between them (an adapter, or a matrix in factors).
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import type { OnnxModel } from "../../onnx/model.ts";
import type { NodeProto } from "../../onnx/node.ts";
import { inOrder } from "../../onnx/order.ts";
import { analyse, type Analysis } from "../find.ts";
import { projectionMatrix } from "../matrices.ts";
import { readInput } from "./input.ts";
import type { MatrixNumbers } from "../trace/matrix.ts";
import { type Projection, storedName } from "../trace/projection.ts";
import {
  FEED_FORWARD_MATRICES,
  type FeedForwardBlock,
  type FeedForwardMatrixName,
  type FeedForwardPlace,
} from "./types.ts";

/** The projections of one network, where it runs. */
export type FeedForwardSite = Readonly<Partial<Record<FeedForwardMatrixName, Projection>>>;

/** A block with the places where it runs: several where layers share their weights or branches repeat them. */
export interface LocatedFeedForward extends FeedForwardBlock {
  readonly sites: readonly [FeedForwardSite, ...FeedForwardSite[]];
}

const found = new WeakMap<OnnxModel, readonly LocatedFeedForward[]>();

/**
 * The feed-forward networks of a model, by layer. Networks before the first attention block belong to no layer and are left out, and
 * so are those whose matrices are used elsewhere too. The model must not be changed afterwards.
 */
export function findFeedForward(model: OnnxModel): readonly FeedForwardBlock[] {
  return locateFeedForward(model);
}

/** `findFeedForward` with the places in the graph, for the rewriter. */
export function locateFeedForward(model: OnnxModel): readonly LocatedFeedForward[] {
  let blocks = found.get(model);
  if (blocks === undefined) found.set(model, blocks = locate(analyse(model)));
  return blocks;
}

/**
 * A matrix as rows × columns.
 *
 * @throws RangeError if the model has no such matrix; TuckerdError "bad-model" if it can't be read.
 */
export function extractFeedForward(model: OnnxModel, place: FeedForwardPlace): MatrixNumbers {
  const [site] = locatedMatrix(model, place).sites;
  return projectionMatrix(site, model.folder);
}

/**
 * The projections that multiply by a matrix, wherever it is used.
 *
 * @throws RangeError if the model has no such matrix.
 */
export function locatedMatrix(
  model: OnnxModel,
  { layer, index, matrix }: FeedForwardPlace,
): { readonly sites: readonly [Projection, ...Projection[]] } {
  const block = locateFeedForward(model).find((each) => each.layer === layer && each.index === index);
  const [first, ...others] = (block?.sites ?? []).flatMap((site) => site[matrix] ?? []);
  if (first === undefined) {
    throw new RangeError(`the model has no matrix ${matrix} in network ${index} of layer ${layer}`);
  }
  return { sites: [first, ...others] };
}

interface Placed {
  readonly layer: number;
  readonly sites: [FeedForwardSite, ...FeedForwardSite[]];
}

function locate(analysis: Analysis): LocatedFeedForward[] {
  const placed = new Map<string, Placed>();
  for (const scope of analysis.graph.all()) {
    for (const { layer, site } of sitesIn(analysis, scope)) {
      const key = projections(site).map(storedName).join("|");
      const same = placed.get(key);
      if (same === undefined) placed.set(key, { layer, sites: [site] });
      else same.sites.push(site);
    }
  }
  const alone = [...placed.values()].filter(({ sites }) => !usedElsewhere(analysis, sites));
  const count = new Map<number, number>();
  return alone.sort((a, b) => a.layer - b.layer).map(({ layer, sites }) => {
    const index = count.get(layer) ?? 0;
    count.set(layer, index + 1);
    return { ...describe(sites[0], layer, index), sites };
  });
}

/** The networks of one graph, in execution order. */
function* sitesIn(
  { blocks, tracer }: Analysis,
  scope: Graph,
): Generator<{ readonly layer: number; readonly site: FeedForwardSite }> {
  const layerAt = new Map<NodeProto, number>();
  const inAttention = new Set<NodeProto>();
  for (const block of blocks) {
    for (const site of block.sites) {
      layerAt.set(site.anchor, block.layer);
      for (const part of [site.query, site.key, site.value, site.output]) inAttention.add(part.projection.node);
    }
  }
  let layer: number | undefined;
  for (const node of inOrder(scope.proto.node)) {
    layer = layerAt.get(node) ?? layer;
    const output = inAttention.has(node) ? undefined : tracer.projection(scope, node);
    if (output === undefined || layer === undefined) continue;
    const inputs = readInput(tracer, output);
    if (inputs === undefined || projections(inputs).some(({ node }) => inAttention.has(node))) continue;
    yield { layer, site: { ...inputs, fc_out: output } };
  }
}

/** Whether a matrix is also multiplied outside these sites: with factors in one place only, the model would contradict itself. */
function usedElsewhere({ graph, tracer }: Analysis, sites: readonly FeedForwardSite[]): boolean {
  const own = sites.flatMap(projections);
  const nodes = new Set(own.map(({ node }) => node));
  const names = new Set(own.map(storedName));
  return [...graph.all()].some((scope) =>
    scope.proto.node.some((node) => {
      const other = nodes.has(node) ? undefined : tracer.projection(scope, node);
      return other !== undefined && names.has(storedName(other));
    })
  );
}

function projections(site: FeedForwardSite): Projection[] {
  return FEED_FORWARD_MATRICES.flatMap((name) => site[name] ?? []);
}

function describe(site: FeedForwardSite, layer: number, index: number): FeedForwardBlock {
  return {
    layer,
    index,
    name: commonName(projections(site), layer),
    matrices: FEED_FORWARD_MATRICES.flatMap((name) => {
      const projection = site[name];
      return projection === undefined ? [] : [{ name, rows: projection.rows, columns: projection.columns }];
    }),
  };
}

/** What the names of the nodes have in common, with dots. */
function commonName(parts: readonly Projection[], layer: number): string {
  const paths = parts.map(({ node }) => node.name.split("/").filter((part) => part !== "").slice(0, -1));
  const [first, ...others] = paths;
  const differs = first!.findIndex((part, i) => others.some((path) => path[i] !== part));
  const common = first!.slice(0, differs === -1 ? first!.length : differs);
  return common.length === 0 ? `feed_forward.${layer}` : common.join(".");
}
