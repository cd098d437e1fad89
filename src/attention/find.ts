/**
 * Finds every attention block of a model. Anchors are tried family by family; what no family understands is reported with
 * the reason and left alone.
 *
 * @module
 */
import { Graph } from "../onnx/graph.ts";
import type { OnnxModel } from "../onnx/model.ts";
import type { NodeProto } from "../onnx/node.ts";
import { TuckerdError } from "../errors.ts";
import { type Fillers, joinReader } from "./cache_reader.ts";
import { contestedSites } from "./contested.ts";
import { describe, type LocatedBlock, twinProblem } from "./describe.ts";
import { judgeCalls } from "./families/closed_functions.ts";
import { judgeAll } from "./families/judge.ts";
import { groupProblem } from "./groups.ts";
import { lower } from "./lower/lower.ts";
import type { Lowering } from "./lower/restore.ts";
import { withSharedBiases } from "./shared_biases.ts";
import { sharedElsewhere, sitesByWeights, weightReaders } from "./shared_weights.ts";
import type { Site, Verdict } from "./site.ts";
import { probeRuns } from "./trace/evaluate.ts";
import { Identities } from "./trace/identity.ts";
import { Tracer } from "./trace/tracer.ts";
import { constantProjections, twinsOf } from "./twins.ts";
import { matrixProblem } from "./unfit_matrices.ts";
import type { AttentionBlock, AttentionOperator, SkippedAttention } from "./types.ts";
import { operatorsOf } from "./verdicts.ts";

/** What `findAttention` returns. */
export interface FoundAttention {
  /** In execution order. */
  readonly blocks: readonly AttentionBlock[];
  readonly skipped: readonly SkippedAttention[];
  /** Both, operator by operator, in execution order. */
  readonly operators: readonly AttentionOperator[];
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
  const judged = [...judgeAll(tracer, graph), ...judgeCalls(model, graph)];
  const fillers = fillersOf(model, { tracer, judged });
  const found = judged.map(([anchor, verdict]): [NodeProto, Site | string] => {
    if ("site" in verdict) return [anchor, verdict.site];
    if ("reason" in verdict) return [anchor, verdict.reason];
    const joined = joinReader(tracer, verdict.reader, fillers);
    for (const each of [tracer, fillers.tracer]) each.forgetUnused();
    return [anchor, joined];
  });
  const contested = contestedSites(found.flatMap(([, site]) => typeof site === "string" ? [] : site));
  const sites: Site[] = [];
  const left = new Map<NodeProto, string>();
  for (const [anchor, candidate] of found) {
    const site = typeof candidate === "string"
      ? candidate
      : contested.get(candidate) ?? matrixProblem(candidate) ?? groupProblem(candidate) ?? candidate;
    if (typeof site === "string") left.set(anchor, site);
    else sites.push(site);
  }
  const readers = weightReaders(tracer, graph);
  const constants = constantProjections(tracer, graph);
  const blocks: LocatedBlock[] = [];
  const reader = { tracer, identities: new Identities(tracer) };
  for (const same of sitesByWeights(tracer, sites)) {
    const places = withSharedBiases(same);
    if (typeof places === "string") {
      for (const { anchor } of same) left.set(anchor, places);
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
  const operators = operatorsOf(judged.map(([anchor]) => anchor), { lowerings, blocks, left });
  const skipped = operators.flatMap(({ node, operator, verdict, reason }) =>
    verdict === "left" ? { node, operator, reason: reason! } : []
  );
  return { graph, lowerings, tracer, blocks, skipped, operators };
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
