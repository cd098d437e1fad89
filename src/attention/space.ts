/**
 * Whether query and key, and value and output, may run in r2 numbers per head: the small space gives the same result only
 * if nothing but scores and contexts sees the numbers in between.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import type { NodeProto } from "../onnx/node.ts";
import { sizeOf } from "../onnx/tensor.ts";
import { outputSizes } from "./axis_sizes.ts";
import { isGroupQuery } from "./group_query.ts";
import type { HeadView } from "./heads.ts";
import { isPlain } from "./rows.ts";
import type { Site, SiteParts, SoftmaxPath } from "./site.ts";
import { isElementwise } from "./trace/arithmetic.ts";
import { isMovement } from "./trace/movement.ts";
import { isNorm } from "./trace/norms.ts";
import type { Tracer } from "./trace/tracer.ts";

/** Judges both pairs of a site, and finds what the model gives out as its cache. */
export function judgeSpaces(
  tracer: Tracer,
  site: SiteParts,
  path: SoftmaxPath,
): Pick<Site, "present" | "queryKeyExpandedBecause" | "valueOutputExpandedBecause" | "valueBiasInside"> {
  const queryKey = readersOf(tracer, site, ["query", "key"]);
  const value = readersOf(tracer, site, ["value"]);
  return {
    present: { key: queryKey.cached.key, value: value.cached.value },
    queryKeyExpandedBecause: queryKeyProblem(tracer, site, path) ?? queryKey.problem,
    valueOutputExpandedBecause: valueOutputProblem(tracer, site, path) ?? value.problem,
    ...(path.rowSumBroken !== undefined && site.value.bias !== undefined && site.fused === undefined
      ? { valueBiasInside: true }
      : {}),
  };
}

/** Values on the way from the projections to scores and context, in no order, without those two. */
export function valuesBetween(site: SiteParts): string[] {
  const starts = [site.query, site.key, site.value].map((view) =>
    view.fromCache ? view.past! : view.projection.node.output[0]!
  );
  return followers(site, starts, [site.scores, site.context]);
}

/** Values on the way from the context to the output projection, the context among them. */
export function valuesBehind(site: SiteParts): string[] {
  return followers(site, [site.context], [site.output.projection.node.output[0]!, site.output.result]);
}

/** Everything made from `starts` by operators that move elements, work element by element or are norms or rotations, up to `ends`. */
function followers(site: SiteParts, starts: readonly string[], ends: readonly string[]): string[] {
  const { graph } = site;
  const pending = [...starts];
  const seen = new Set<string>();
  while (pending.length > 0) {
    const name = pending.pop()!;
    if (seen.has(name) || ends.includes(name)) continue;
    seen.add(name);
    for (const { node, graph: user } of graph.uses(name)) {
      const follows = isMovement(node) || isElementwise(node) || (isNorm(node) && node.input[0] === name);
      if (user === graph && follows) pending.push(...node.output);
    }
  }
  return [...seen];
}

/** Whether a node is one of the two products. */
function makes(node: NodeProto, site: SiteParts): boolean {
  return node.output[0] === site.scores || node.output[0] === site.context;
}

function queryKeyProblem(
  tracer: Tracer,
  { graph, query, key, scores, fused }: SiteParts,
  path: SoftmaxPath,
): string | undefined {
  if (query.inexact !== undefined) return `query: ${query.inexact}`;
  if (key.inexact !== undefined) return `key: ${key.inexact}`;
  if (path.notAdditive !== undefined && key.bias !== undefined) {
    return `${path.notAdditive} bends the scores, so the key bias doesn't cancel`;
  }
  return streamProblem(query, fused) ?? streamProblem(key, fused) ?? pastProblem(tracer, graph, key) ??
    (fused === undefined ? stackProblem(tracer, graph, { name: scores, what: "scores" }) : undefined);
}

/** The rewritten block makes and takes stacks of matrices [batch, heads, …] or [batch · heads, …]. */
function stackProblem(
  tracer: Tracer,
  graph: Graph,
  { name, what }: { readonly name: string; readonly what: string },
): string | undefined {
  const shape = tracer.value(graph, name).shape;
  const fits = shape?.length === 3 || shape?.length === 4;
  return fits ? undefined : `its ${what} ${name} have shape [${shape}], not [batch, heads, positions, positions]`;
}

function valueOutputProblem(
  tracer: Tracer,
  site: SiteParts,
  path: SoftmaxPath,
): string | undefined {
  const { graph, value, output, probabilities, fused } = site;
  if (value.inexact !== undefined) return `value: ${value.inexact}`;
  if (output.inexact !== undefined) return `output: ${output.inexact}`;
  if (output.order === undefined) return "the output's rows aren't those of [batch, positions] in any order of axes";
  if (!isPlain(output.order) && outputSizes(tracer, site) === undefined) {
    return "the sizes of the output can't be told before it is there";
  }
  if (fused !== undefined && path.rowSumBroken !== undefined && value.bias !== undefined) {
    return `${path.rowSumBroken} changes its row sums, so the value bias can't move behind it`;
  }
  return streamProblem(value, fused) ?? pastProblem(tracer, graph, value) ??
    (fused === undefined ? stackProblem(tracer, graph, { name: probabilities, what: "probabilities" }) : undefined);
}

/** The rewritten block splits heads off a [batch, positions, d] stream, or one whose rows can be put so; GroupQueryAttention takes no other. */
function streamProblem(view: HeadView, fused: SiteParts["fused"]): string | undefined {
  if (view.fromCache) return undefined;
  const { order, projection: { input } } = view;
  if (order !== undefined && (isPlain(order) || fused === undefined || !isGroupQuery(fused.node))) return undefined;
  return `the rows of its input ${input} aren't those of [batch, positions] in any order of axes`;
}

/** The rewritten block puts new positions behind the past along the third dimension. */
function pastProblem(tracer: Tracer, graph: Graph, view: HeadView): string | undefined {
  if (view.past === undefined) return undefined;
  const shape = tracer.value(graph, view.past).shape;
  const fits = shape?.length === 4 && shape[3] === view.headSize;
  return fits ? undefined : `its past ${view.past} has shape [${shape}], not [batch, heads, positions, head size]`;
}

/**
 * Who else reads some of query, key and value on their way to the two products: a reader would see the original numbers, so
 * the block must keep them at full size. Reading shapes doesn't count, and the cache that the model gives out is told apart.
 *
 * @param known readers that don't count either
 */
export function readersOf(
  tracer: Tracer,
  site: SiteParts,
  names: readonly ("query" | "key" | "value")[],
  known: readonly NodeProto[] = [],
): { cached: Partial<Site["present"]>; problem: string | undefined } {
  const { graph } = site;
  const cached: Partial<{ key: string; value: string }> = {};
  let problem: string | undefined;
  const carries = (value: string): boolean => names.some((name) => carriesPart(tracer, site, { name, value }));
  for (const name of valuesBetween(site).filter(carries)) {
    if (graph.isOutput(name)) {
      const part = cachedPart(tracer, site, name);
      if (part === undefined) problem ??= `the model gives ${name} out`;
      else cached[part] = name;
    }
    for (const { node, graph: user } of graph.uses(name)) {
      if (node.opType === "Shape" || node.opType === "Size") continue;
      const follows = isMovement(node) || isElementwise(node) || isNorm(node) || makes(node, site) ||
        node === site.value.norm?.mean || known.includes(node);
      if (user !== graph || !follows || tracer.projection(graph, node) !== undefined) {
        problem ??= `${node.opType} (${node.name || node.output[0]}) reads ${name} too`;
      }
    }
  }
  return { cached, problem };
}

/** Whether a value holds something of a view: packed projections hold several. */
function carriesPart(
  tracer: Tracer,
  site: SiteParts,
  { name, value }: { readonly name: "query" | "key" | "value"; readonly value: string },
): boolean {
  const view = site[name];
  const { node } = view.projection;
  const trace = tracer.trace(site.graph, value);
  if (trace === undefined) return true; // it might: no shape is known of it
  if (view.fromCache) return tracer.sourcesOf(trace).some((candidate) => candidate.name === view.past);
  const source = tracer.sourcesOf(trace).find((candidate) => candidate.node === node);
  if (source === undefined) return false;
  const width = source.shape.at(-1)!;
  const wanted = new Uint8Array(width);
  for (const column of view.columns) wanted[column] = 1;
  if (!wanted.includes(0)) return true;
  const size = sizeOf(source.shape);
  for (const origin of trace.origin) {
    const at = origin - source.base;
    if (at >= 0 && at < size && wanted[at % width] === 1) return true;
  }
  return false;
}

/** Which of key and value a model output [batch, heads, positions, head size] holds. */
function cachedPart(tracer: Tracer, site: SiteParts, name: string): "key" | "value" | undefined {
  const trace = tracer.trace(site.graph, name);
  if (trace?.shape.length !== 4 || trace.shape[3] !== site.key.headSize) return undefined;
  const { source, index } = tracer.sourceOf(trace.origin.at(-1)!);
  const column = index % (source.shape.at(-1) ?? 1);
  return (["key", "value"] as const).find((part) =>
    site[part].fromCache
      ? source.kind === "input" && source.name === site[part].past
      : source.node === site[part].projection.node && site[part].columns.includes(column)
  );
}
