/**
 * Norms of key heads between their projection and their rotation, as Qwen3's and Gemma 3's: an operator (RMSNormalization and its like) or
 * the plain ones that it stands for. Of keys that are made from z, the norm is taken in the small space (`rewrite/key_norm.ts`); gains and
 * shifts behind it are terms like any other.
 *
 *     k / √(mean(k²) + ε)              d / √(mean(d²) + ε) with d = k − mean(k), where it is centred
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { floatAttribute, intAttribute, type NodeProto } from "../onnx/node.ts";
import { isMeanOfLast, normAt } from "./head_norm.ts";
import { isNear } from "./key_operand.ts";
import type { Site } from "./site.ts";
import { knownConstant } from "./trace/constants.ts";
import type { LinearStart } from "./trace/lazy_trace.ts";
import type { Tracer } from "./trace/tracer.ts";

/** A norm of each head of a projection, without gain. */
export interface KeyNorm {
  readonly epsilon: number;
  /** The mean is taken off first. */
  readonly centred: boolean;
}

/** A norm of keys in the graph. */
export interface FoundKeyNorm {
  readonly norm: KeyNorm;
  /** What the norm makes, as numbers of the projection that have been normed, with the operator's gain and shift. */
  readonly start: LinearStart;
  /** Operators in it that read keys and make less than keys of them. */
  readonly means: readonly NodeProto[];
}

/** A norm as a graph has it. */
interface Written {
  readonly norm: KeyNorm;
  /** Heads before and behind, [..., h]. */
  readonly input: string;
  readonly output: string;
  /** [h]; 1 and 0 where undefined. */
  readonly gain?: ArrayLike<number> | undefined;
  readonly shift?: ArrayLike<number> | undefined;
  readonly means: readonly NodeProto[];
}

/** Operators that norm their last axis, with a gain. */
const OPERATORS = new Map([
  ["LayerNormalization", { centred: true }],
  ["SimplifiedLayerNormalization", { centred: false }],
  ["RMSNormalization", { centred: false }],
]);

/**
 * Finds the norm that a site's keys have gone through by the time they stand in a value; undefined where there is none, a text where one
 * can't be taken in the small space.
 */
export function findKeyNorm(tracer: Tracer, { graph, key }: Site, value: string): FoundKeyNorm | string | undefined {
  const { headSize, projection } = key;
  const written = normBehind(tracer, graph, { value, headSize, projected: projection.node });
  if (written === undefined) return undefined;
  const { norm, input, output, gain, shift, means } = written;
  const trace = tracer.trace(graph, input);
  if (trace === undefined || trace.inexact !== undefined) return trace?.inexact;
  const [scale] = trace.scale as unknown as [number];
  if (trace.offset.some((number) => number !== 0)) return `a bias stands before the norm of its keys ${input}`;
  if (!(scale > 0) || !trace.scale.every((number) => isNear(number, scale))) {
    return `the keys that are normed, ${input}, have different scales`;
  }
  // A norm takes scales away, but for what ε is beside the squares.
  const epsilon = norm.epsilon / scale ** 2;
  return { norm: { ...norm, epsilon }, start: { name: output, trace, gain, shift, size: headSize }, means };
}

/** Follows a value back to the norm's last node. */
function normBehind(
  tracer: Tracer,
  graph: Graph,
  { value, headSize, projected }: { readonly value: string; readonly headSize: number; readonly projected: NodeProto },
): Written | undefined {
  for (let node = graph.producer(value); node !== undefined && node !== projected;) {
    const written = operatorNorm(tracer, graph, { node, headSize }) ?? plainNorm(tracer, graph, { node, headSize });
    if (written !== undefined) return written;
    const from = node.input.find((input) => input !== "" && tracer.reaches(graph, input, projected));
    node = from === undefined ? undefined : graph.producer(from);
  }
  return undefined;
}

function operatorNorm(
  tracer: Tracer,
  graph: Graph,
  { node, headSize }: { readonly node: NodeProto; readonly headSize: number },
): Written | undefined {
  const kind = OPERATORS.get(node.opType);
  const [input, ...others] = node.input as [string, ...string[]];
  const shape = tracer.value(graph, input).shape;
  const axis = intAttribute(node, "axis", -1);
  if (kind === undefined || shape?.at(-1) !== headSize || (axis !== -1 && axis !== shape.length - 1)) return undefined;
  const [gain, shift] = others.map((name) => name === "" ? undefined : knownConstant(graph, name, tracer.folder)?.data);
  const known = [gain, shift].every((numbers, i) => !others[i] || numbers?.length === headSize);
  if (!known) return undefined;
  const norm = { epsilon: floatAttribute(node, "epsilon", 1e-5), centred: kind.centred };
  return { norm, input, output: node.output[0]!, gain, shift, means: [] };
}

function plainNorm(
  tracer: Tracer,
  graph: Graph,
  { node, headSize }: { readonly node: NodeProto; readonly headSize: number },
): Written | undefined {
  const found = normAt(tracer, graph, { node, headSize });
  if (found === undefined) return undefined;
  const { input, norm: { epsilon, mean } } = found;
  const output = node.output[0]!;
  const before = graph.producer(input);
  const centre = before?.opType === "Sub" ? graph.producer(before.input[1]!) : undefined;
  const centred = centre?.opType === "ReduceMean" && centre.input[0] === before!.input[0] &&
    isMeanOfLast(tracer, graph, centre);
  return centred
    ? { norm: { epsilon, centred }, input: before!.input[0]!, output, means: [mean, centre] }
    : { norm: { epsilon, centred: false }, input, output, means: [mean] };
}
