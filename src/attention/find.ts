/**
 * Finds every attention block of a model. Anchors are tried family by family; what no family understands is reported with
 * the reason and left alone.
 *
 * @module
 */
import { Graph } from "../onnx/graph.ts";
import { inOrder } from "../onnx/order.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { nodeName, type NodeProto, operatorOf } from "../onnx/node.ts";
import { TuckerdError } from "../errors.ts";
import { describeCache } from "./cache.ts";
import { describeRotation, type KeyRotation, type RotationReader } from "./rotation.ts";
import { Identities } from "./trace/identity.ts";
import { contestedSites } from "./contested.ts";
import { findAtAttention, findAtOperator } from "./families/fused.ts";
import { findAtSoftmax } from "./families/softmax.ts";
import { type Fillers, joinReader } from "./cache_reader.ts";
import { lower } from "./lower/lower.ts";
import { type Lowering, originalOperator } from "./lower/restore.ts";
import { withSharedBiases } from "./shared_biases.ts";
import type { Site, Verdict } from "./site.ts";
import { type Projection, storedName } from "./trace/projection.ts";
import { probeRuns } from "./trace/evaluate.ts";
import { Tracer } from "./trace/tracer.ts";
import { constantProjections, type Twin, twinsOf } from "./twins.ts";
import type { AttentionBlock, AttentionOperator, SkippedAttention } from "./types.ts";

/** What `findAttention` returns. */
export interface FoundAttention {
  /** In execution order. */
  readonly blocks: readonly AttentionBlock[];
  readonly skipped: readonly SkippedAttention[];
  /** Both, operator by operator, in execution order. */
  readonly operators: readonly AttentionOperator[];
}

/** A block with the places where it runs: several where layers share their weights or branches repeat them. */
export interface LocatedBlock extends AttentionBlock {
  readonly sites: readonly [Site, ...Site[]];
  /** Where else its matrices are used, in the graph of the first site. */
  readonly twins: readonly Twin[];
  /** What each site does to its keys; undefined where that isn't known of one, or where there is no cache to tell it for. */
  readonly rotations?: readonly KeyRotation[];
}

/** Everything known about a model's attention: the public findings, and where they are in the graph. */
export interface Analysis {
  /** The model's graph in plain operators. */
  readonly graph: Graph;
  /** What was something else in the file. */
  readonly lowerings: readonly Lowering[];
  readonly tracer: Tracer;
  readonly blocks: readonly LocatedBlock[];
  readonly skipped: readonly SkippedAttention[];
  readonly operators: readonly AttentionOperator[];
}

type Family = (tracer: Tracer, graph: Graph, anchor: NodeProto) => Verdict;

/** Attention operators that are known, but not taken apart. */
function notYet(_tracer: Tracer, _graph: Graph, node: NodeProto): Verdict {
  return { reason: `${operatorOf(node)} isn't taken apart yet` };
}

/** Anchor operators and the family that judges them. */
const FAMILIES: Readonly<Record<string, { readonly name: string; readonly judge: Family }>> = {
  "Softmax": { name: "softmax", judge: findAtSoftmax },
  "com.microsoft.Attention": { name: "fused", judge: findAtAttention },
  "com.microsoft.MultiHeadAttention": { name: "fused", judge: findAtOperator },
  "com.microsoft.GroupQueryAttention": { name: "fused", judge: findAtOperator },
  "Attention": { name: "fused", judge: findAtOperator },
  "com.microsoft.PackedAttention": { name: "fused", judge: notYet },
  "com.microsoft.PackedMultiHeadAttention": { name: "fused", judge: notYet },
  "com.microsoft.DecoderMaskedMultiHeadAttention": { name: "fused", judge: notYet },
};

/** Analyses are kept as long as their model lives: finding, extracting and rewriting ask for the same one. */
const analyses = new WeakMap<OnnxModel, Analysis>();

/** Finds the attention blocks of a model. The model must not be changed afterwards (passes return new ones). */
export function findAttention(model: OnnxModel): FoundAttention {
  const { blocks, skipped, operators } = analyse(model);
  return { blocks, skipped, operators };
}

/** `findAttention` with the places in the graph, for the rewriters. */
export function analyse(model: OnnxModel): Analysis {
  let analysis = analyses.get(model);
  if (analysis === undefined) analyses.set(model, analysis = analyseOnce(model));
  return analysis;
}

/**
 * The located block of a layer number.
 *
 * @throws RangeError if the model has no such layer.
 */
export function locatedBlock(analysis: Analysis, layer: number): LocatedBlock {
  const block = analysis.blocks[layer];
  if (block === undefined) {
    throw new RangeError(`the model has attention layers 0 to ${analysis.blocks.length - 1}, asked for ${layer}`);
  }
  return block;
}

function analyseOnce(model: OnnxModel): Analysis {
  const { graph: proto } = model.proto;
  if (proto === undefined) throw new TuckerdError("bad-model", `${model.path} has no graph`);
  const { graph, lowerings } = lower(new Graph(proto), model.folder);
  const tracer = new Tracer(probeRuns(graph, model.folder), model.folder);
  const judged = judgeAll(tracer, graph);
  const fillers = fillersOf(model, { tracer, judged });
  const found = judged.map(([anchor, verdict]): [NodeProto, Site | string] => {
    if ("site" in verdict) return [anchor, verdict.site];
    if ("reason" in verdict) return [anchor, verdict.reason];
    const joined = joinReader(tracer, verdict.reader, fillers);
    for (const each of [tracer, fillers.tracer]) each.forgetUnused();
    return [anchor, joined];
  });
  const contested = contestedSites(found.flatMap(([, site]) => typeof site === "string" ? [] : site));
  const sites = new Map<string, [Site, ...Site[]]>();
  const left = new Map<NodeProto, string>();
  for (const [anchor, candidate] of found) {
    const site = typeof candidate === "string" ? candidate : contested.get(candidate) ?? candidate;
    if (typeof site === "string") {
      left.set(anchor, site);
      continue;
    }
    const key = weightKey(site);
    const same = sites.get(key);
    // Weights are read from the first place, so one that projects all of them comes before those that read a cache.
    if (same === undefined) sites.set(key, [site]);
    else if (same[0].key.fromCache) same.unshift(site);
    else same.push(site);
  }
  const readers = weightReaders(tracer, graph);
  const constants = constantProjections(tracer, graph);
  const blocks: LocatedBlock[] = [];
  const reader = { tracer, identities: new Identities(tracer) };
  for (const [first, ...others] of sites.values()) {
    const places = withSharedBiases([first, ...others]);
    if (typeof places === "string") {
      for (const { anchor } of [first, ...others]) left.set(anchor, places);
      continue;
    }
    const twins = twinsOf(tracer, places[0], constants);
    const reason = sharedElsewhere(places, readers) ?? twinProblem(places, twins);
    if (reason === undefined) blocks.push(describe(reader, places, { layer: blocks.length, twins }));
    else for (const { anchor } of places) left.set(anchor, reason);
    tracer.forgetUnused();
    reader.identities.forgetElements();
  }
  tracer.forgetAll();
  const operators = judged.map(([anchor]): AttentionOperator => ({
    node: nodeName(anchor),
    operator: originalOperator(lowerings, anchor),
    ...verdictOn(anchor, blocks, left),
  }));
  const skipped = operators.flatMap(({ node, operator, verdict, reason }) =>
    verdict === "left" ? { node, operator, reason: reason! } : []
  );
  return { graph, lowerings, tracer, blocks, skipped, operators };
}

/** What became of one anchor. */
function verdictOn(
  anchor: NodeProto,
  blocks: readonly LocatedBlock[],
  left: ReadonlyMap<NodeProto, string>,
): Pick<AttentionOperator, "verdict" | "layer" | "reason"> {
  const block = blocks.find(({ sites }) => sites.some((site) => site.anchor === anchor));
  if (block === undefined) return { verdict: "left", reason: left.get(anchor)! };
  const { queryKeyExpandedBecause, noLatentKeysBecause, valueOutputExpandedBecause } = block;
  const reasons = [
    ...queryKeyExpandedBecause === undefined ? [] : [`queries and keys run at full size: ${queryKeyExpandedBecause}`],
    ...queryKeyExpandedBecause === undefined || noLatentKeysBecause === undefined
      ? []
      : [`so do keys in the cache, z can't stand for them: ${noLatentKeysBecause}`],
    ...valueOutputExpandedBecause === undefined ? [] : [`values run at full size: ${valueOutputExpandedBecause}`],
  ];
  const reason = reasons.length === 0 ? {} : { reason: reasons.join("; ") };
  return { verdict: "found", layer: block.layer, ...reason };
}

/** The verdict on every anchor, in execution order. */
function judgeAll(tracer: Tracer, graph: Graph): [NodeProto, Verdict][] {
  const judged: [NodeProto, Verdict][] = [];
  for (const scope of graph.all()) {
    for (const node of inOrder(scope.proto.node)) {
      const family = FAMILIES[operatorOf(node)];
      if (family === undefined) continue;
      judged.push([node, family.judge(tracer, scope, node)]);
      tracer.forgetUnused();
    }
  }
  return judged;
}

/** The sites that may fill a cache: those of this model, or of the file of the first call. */
function fillersOf(
  { firstCall }: OnnxModel,
  own: { readonly tracer: Tracer; readonly judged: readonly [NodeProto, Verdict][] },
): Fillers {
  if (firstCall === undefined) {
    const sites = own.judged.flatMap(([, verdict]) => "site" in verdict ? verdict.site : []);
    return { tracer: own.tracer, sites, elsewhere: false };
  }
  const { tracer, blocks } = analyse(firstCall);
  return { tracer, sites: blocks.flatMap(({ sites }) => sites), elsewhere: true };
}

/** The projections that read each stored matrix. */
function weightReaders(tracer: Tracer, graph: Graph): Map<string, Projection[]> {
  const readers = new Map<string, Projection[]>();
  for (const scope of graph.all()) {
    for (const node of scope.proto.node) {
      const projection = tracer.projection(scope, node);
      if (projection === undefined) continue;
      const name = storedName(projection);
      readers.set(name, [...readers.get(name) ?? [], projection]);
    }
  }
  return readers;
}

/**
 * Why a block must stay because a matrix of it is also used where no block was found (the cached branch of a merged decoder's
 * cross attention, say): with factors in one place and the original in the other, the model would contradict itself.
 */
function sharedElsewhere(
  sites: readonly Site[],
  readers: ReadonlyMap<string, readonly Projection[]>,
): string | undefined {
  const own = sites.flatMap(({ query, key, value, output }) => [
    output.projection,
    ...[query, key, value].flatMap((view) => view.fromCache ? [] : view.projection),
  ]);
  const nodes = new Set(own.map(({ node }) => node));
  for (const projection of own) {
    const other = readers.get(storedName(projection))?.find(({ node }) => !nodes.has(node));
    if (other === undefined) continue;
    return `${nodeName(other.node)} uses its matrix ${
      storedName(projection)
    } too, and isn't part of a block that was found`;
  }
  return undefined;
}

/** Sites with the same key use the very same weights. */
function weightKey({ query, key, value, output }: Site): string {
  const views = [query, key, value].map((view) => `${storedName(view.projection)}:${view.columns}`);
  return [...views, `${storedName(output.projection)}:${output.rows}`].join("|");
}

/** Why a block whose matrices are used on constants too must stay: factors are written beside it only, and for every head. */
function twinProblem([site]: readonly [Site, ...Site[]], twins: readonly Twin[]): string | undefined {
  const far = twins.find(({ projection, names }) =>
    projection.graph !== site.graph || names.some((name) => keyValueHeadsOf(site[name]) < site.query.heads)
  );
  return far &&
    `${nodeName(far.projection.node)} uses its ${far.names} matrix too, in another graph or by groups of heads`;
}

/** Why a space must be expanded because a matrix of it is used on constants too, which knows of no small space. */
function twinReason(twins: readonly Twin[], parts: readonly string[]): string | undefined {
  const twin = twins.find(({ names }) => names.some((name) => parts.includes(name)));
  return twin && `${nodeName(twin.projection.node)} projects constants with its ${twin.names} matrix`;
}

function describe(
  reader: RotationReader,
  sites: readonly [Site, ...Site[]],
  { layer, twins }: { readonly layer: number; readonly twins: readonly Twin[] },
): LocatedBlock {
  const { tracer } = reader;
  const [first] = sites;
  const { query, key, value } = first;
  const queryKey = sites.find((site) => site.queryKeyExpandedBecause !== undefined)?.queryKeyExpandedBecause ??
    twinReason(twins, ["query", "key"]);
  const valueOutput = sites.find((site) => site.valueOutputExpandedBecause !== undefined)?.valueOutputExpandedBecause ??
    twinReason(twins, ["value"]);
  const cached = (part: "key" | "value"): number => {
    const name = first[part].past ?? first.present[part];
    if (name === undefined) return 0;
    // Some graphs cache what they have repeated already.
    const stored = tracer.value(first.graph, name).shape;
    const heads = stored?.length === 4 ? stored[1]! : keyValueHeadsOf(first[part]);
    return heads * first[part].headSize;
  };
  const cache = describeCache(sites);
  const known = twins.length === 0 && cache.noLatentCacheBecause === undefined;
  return {
    layer,
    name: blockName(first, layer),
    family: FAMILIES[operatorOf(first.anchor)]!.name,
    hiddenSize: query.projection.rows,
    heads: query.heads,
    keyValueHeads: Math.max(keyValueHeadsOf(key), keyValueHeadsOf(value)),
    headSize: query.headSize,
    ...(queryKey === undefined ? {} : { queryKeyExpandedBecause: queryKey }),
    ...(valueOutput === undefined ? {} : { valueOutputExpandedBecause: valueOutput }),
    ...(sites.some(({ valueBiasInside }) => valueBiasInside) ? { valueBiasInside: true } : {}),
    ...(sites.some(({ value }) => value.norm !== undefined) ? { valueNormed: true } : {}),
    ...(sites.some(({ fused }) => fused?.oneHeadSize) ? { oneHeadSize: true } : {}),
    cacheNumbersPerToken: cached("key") + cached("value"),
    ...cache,
    ...(known ? describeRotation(reader, sites) : {}),
    sites,
    twins,
  };
}

/** Number of different heads in a view: grouped queries share the same columns. */
function keyValueHeadsOf(view: Site["key"]): number {
  const heads = new Set<string>();
  for (let i = 0; i < view.heads; i++) {
    heads.add(String(view.columns.subarray(i * view.headSize, (i + 1) * view.headSize)));
  }
  return heads.size;
}

/** What the names of the block's nodes have in common, with dots: `bert.encoder.layer.0.attention`. */
function blockName(site: Site, layer: number): string {
  const paths = [site.anchor, site.query.projection.node, site.output.projection.node]
    .map((node) => node.name.split("/").filter((part) => part !== "").slice(0, -1));
  const [first, ...others] = paths;
  const differs = first!.findIndex((part, i) => others.some((path) => path[i] !== part));
  const common = first!.slice(0, differs === -1 ? first!.length : differs);
  return common.length === 0 ? `attention.${layer}` : common.join(".");
}
