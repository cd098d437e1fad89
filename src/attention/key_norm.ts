/**
 * Norms of keys between their projection and their rotation, as Qwen3's and Gemma 3's: an operator (RMSNormalization and its like) or
 * the plain ones that it stands for, of each head or of all together. Of keys that are made from z, the norm is taken in the small space
 * (`rewrite/key_norm.ts`); gains and shifts behind it are terms like any other.
 *
 *     k / √(mean(k²) + ε)              d / √(mean(d²) + ε) with d = k − mean(k), where it is centred
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto } from "../onnx/node.ts";
import { groupsOf } from "./groups.ts";
import { hasWholeHeads, isMeanOfLast, normAt } from "./head_norm.ts";
import type { HeadView } from "./heads.ts";
import { isNear } from "./key_operand.ts";
import type { Site } from "./site.ts";
import { knownConstant } from "./trace/constants.ts";
import type { LinearStart } from "./trace/lazy_trace.ts";
import type { Trace } from "./trace/trace.ts";
import type { Tracer } from "./trace/tracer.ts";

/** A norm of a projection's heads, without gain. */
export interface KeyNorm {
  readonly epsilon: number;
  /** The mean is taken off first. */
  readonly centred: boolean;
  /** The mean is that of all heads together. */
  readonly together: boolean;
  /** What is added to each number before, [H · h] in the order of the view's columns; undefined where nothing is. */
  readonly bias: Float32Array | undefined;
}

/** The norm of a site's keys in the graph. */
export interface FoundKeyNorm {
  readonly norm: KeyNorm;
  /** What it makes, as numbers of the projection that have been normed, with the operator's gain and shift: some write it head by head. */
  readonly starts: readonly LinearStart[];
  /** Operators in it that read keys and make less than keys of them. */
  readonly means: readonly NodeProto[];
}

/** A norm as a graph has it. */
interface Written {
  readonly epsilon: number;
  readonly centred: boolean;
  /** Numbers before and behind, [..., h] or [..., G · h]. */
  readonly input: string;
  readonly output: string;
  /** As many as the last axis has places; 1 and 0 where undefined. */
  readonly gain?: ArrayLike<number> | undefined;
  readonly shift?: ArrayLike<number> | undefined;
  readonly means: readonly NodeProto[];
}

/** Operators that norm their last axis, with a gain, and whether they take the mean off. */
const OPERATORS: ReadonlyMap<string, boolean> = new Map([
  ["LayerNormalization", true],
  ["SimplifiedLayerNormalization", false],
  ["RMSNormalization", false],
]);

/**
 * Finds the norm that a site's keys have gone through by the time they stand in a value; undefined where there is none, a text where one
 * can't be taken in the small space.
 */
export function findKeyNorm(tracer: Tracer, { graph, key }: Site, value: string): FoundKeyNorm | string | undefined {
  const written = normsBehind(tracer, graph, { value, key });
  const [first] = written;
  if (first === undefined) return undefined;
  const size = lastSize(tracer, graph, first.input);
  const together = size !== key.headSize;
  if (together && first.centred) return `the norm of its keys ${first.input} takes off the mean of all heads together`;
  const alike = written.every((each) => each.epsilon === first.epsilon && each.centred === first.centred);
  if (!alike) return "its heads are normed differently";
  const traces = written.map(({ input }) => tracer.trace(graph, input));
  const unclear = traces.find((trace) => trace?.inexact !== undefined);
  if (unclear !== undefined || !traces.every((trace) => trace !== undefined)) return unclear?.inexact;
  const scale = traces[0]!.scale[0]!;
  if (!(scale > 0) || !traces.every((trace) => trace.scale.every((number) => isNear(number, scale)))) {
    return `the keys that are normed, ${first.input}, have different scales`;
  }
  if (!together && !traces.every((trace) => hasWholeHeads(tracer, key, trace))) {
    return `the norm of its keys ${first.input} mixes heads`;
  }
  const bias = biasesOf(tracer, key, { traces, scale });
  if (typeof bias === "string") return bias;
  if (together && bias !== undefined) return `a bias stands before the norm of all heads together, ${first.input}`;
  return {
    // A norm takes scales away, but for what ε is beside the squares.
    norm: { epsilon: first.epsilon / scale ** 2, centred: first.centred, together, bias },
    starts: written.map(({ output, gain, shift }, i) => ({ name: output, trace: traces[i]!, gain, shift, size })),
    means: written.flatMap(({ means }) => means),
  };
}

/** Follows a value back on all ways to the projection, up to norms. */
function normsBehind(
  tracer: Tracer,
  graph: Graph,
  { value, key }: { readonly value: string; readonly key: HeadView },
): Written[] {
  const { headSize, projection: { node: projected } } = key;
  const sizes = [headSize, headSize * groupsOf(key)];
  const found: Written[] = [];
  const seen = new Set<NodeProto>([projected]);
  const follow = (name: string): void => {
    const node = graph.producer(name);
    if (node === undefined || seen.has(node)) return;
    seen.add(node);
    const written = operatorNorm(tracer, graph, node) ?? plainNorm(tracer, graph, node);
    if (written !== undefined && sizes.includes(lastSize(tracer, graph, written.input))) {
      found.push(written);
      return;
    }
    for (const input of node.input) {
      if (input !== "" && tracer.reaches(graph, input, projected)) follow(input);
    }
  };
  follow(value);
  return found;
}

function lastSize(tracer: Tracer, graph: Graph, name: string): number {
  return tracer.value(graph, name).shape?.at(-1) ?? 0;
}

function operatorNorm(tracer: Tracer, graph: Graph, node: NodeProto): Written | undefined {
  const centred = OPERATORS.get(node.opType);
  const [input, ...others] = node.input as [string, ...string[]];
  const rank = tracer.value(graph, input).shape?.length;
  const axis = intAttribute(node, "axis", -1);
  if (centred === undefined || rank === undefined || (axis !== -1 && axis !== rank - 1)) return undefined;
  const [gain, shift] = others.map((name) => name === "" ? undefined : knownConstant(graph, name, tracer.folder)?.data);
  const size = lastSize(tracer, graph, input);
  if ([gain, shift].some((numbers, i) => others[i] && numbers?.length !== size)) return undefined;
  const epsilon = floatAttribute(node, "epsilon", 1e-5);
  return { epsilon, centred, input, output: node.output[0]!, gain, shift, means: [] };
}

function plainNorm(tracer: Tracer, graph: Graph, node: NodeProto): Written | undefined {
  const found = normAt(tracer, graph, node);
  if (found === undefined) return undefined;
  const { input, norm: { epsilon, mean } } = found;
  const output = node.output[0]!;
  const before = graph.producer(input);
  const centre = before?.opType === "Sub" ? graph.producer(before.input[1]!) : undefined;
  const centred = centre?.opType === "ReduceMean" && centre.input[0] === before!.input[0] &&
    isMeanOfLast(tracer, graph, centre);
  return centred
    ? { epsilon, centred, input: before!.input[0]!, output, means: [mean, centre] }
    : { epsilon, centred: false, input, output, means: [mean] };
}

/** What is added to the projection's columns before the norm. */
function biasesOf(
  tracer: Tracer,
  { columns, projection }: HeadView,
  { traces, scale }: { readonly traces: readonly Trace[]; readonly scale: number },
): Float32Array | string | undefined {
  if (traces.every(({ offset }) => offset.every((number) => number === 0))) return undefined;
  const { source } = tracer.sourceOf(traces[0]!.origin[0]!);
  const met = new Float64Array(projection.columns).fill(NaN);
  for (const { origin, offset } of traces) {
    for (const [i, from] of origin.entries()) {
      const column = (from - source.base) % projection.columns;
      const bias = offset[i]! / scale;
      if (Number.isNaN(met[column])) met[column] = bias;
      if (!isNear(met[column]!, bias)) {
        return "what is added to its keys before their norm differs from position to position";
      }
    }
  }
  return Float32Array.from(columns, (column) => met[column]!);
}
