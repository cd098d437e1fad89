/**
 * Norms of value heads that have no gain: v / √(mean(v²) + ε), as Gemma 3n's. Where v = ṽ U2ᵀ with orthonormal columns, v and ṽ have the
 * same length, so the norm can be taken in the small space: ṽ / √(Σ ṽ² / h + ε).
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { intAttribute, intsAttribute, type NodeProto } from "../onnx/node.ts";
import type { HeadNorm, HeadView } from "./heads.ts";
import { isMovement } from "./trace/movement.ts";
import type { Trace } from "./trace/trace.ts";
import type { Tracer } from "./trace/tracer.ts";

/** A norm and what it norms. */
export interface Normed {
  /** Name of what stands before the norm. */
  readonly input: string;
  readonly norm: HeadNorm;
}

/**
 * The view of an operand that isn't exact but for a norm without gain.
 *
 * @param inexact the view as it was read
 * @param read reads the operand's heads as if nothing had changed their elements
 */
export function normedView(
  tracer: Tracer,
  graph: Graph,
  { name, inexact, read }: {
    readonly name: string;
    readonly inexact: HeadView;
    readonly read: () => HeadView | string;
  },
): HeadView | undefined {
  const normed = normBehind(tracer, graph, { name, headSize: inexact.headSize, projected: inexact.projection.node });
  const before = normed && tracer.trace(graph, normed.input);
  if (normed === undefined || before === undefined || before.inexact !== undefined) return undefined;
  const view = read();
  if (typeof view === "string" || view.inexact !== undefined) return undefined;
  const plain = view.scale === 1 && view.bias === undefined && hasWholeHeads(tracer, view, before);
  return plain ? { ...view, norm: normed.norm } : undefined;
}

/** Follows an operand back through movements to the norm's last node. */
function normBehind(
  tracer: Tracer,
  graph: Graph,
  { name, headSize, projected }: { readonly name: string; readonly headSize: number; readonly projected: NodeProto },
): Normed | undefined {
  const node = graph.producer(name);
  if (node === undefined) return undefined;
  if (isMovement(node)) {
    const from = node.input.find((input) => input !== "" && tracer.reaches(graph, input, projected));
    return from === undefined ? undefined : normBehind(tracer, graph, { name: from, headSize, projected });
  }
  const normed = normAt(tracer, graph, node);
  return normed && tracer.value(graph, normed.input).shape?.at(-1) === headSize ? normed : undefined;
}

/** Reads a node as the last one of a norm in plain operators, x / √(mean(x²) + ε) over the last axis; undefined where it isn't. */
export function normAt(tracer: Tracer, graph: Graph, node: NodeProto): Normed | undefined {
  const operands = node.opType === "Mul" ? [node.input, node.input.toReversed()] : [node.input];
  for (const [heads, factor] of operands) {
    if (heads === undefined || factor === undefined) continue;
    const root = node.opType === "Mul"
      ? inverseRootOf(tracer, graph, factor)
      : node.opType === "Div"
      ? rootOf(tracer, graph, factor)
      : undefined;
    const norm = root === undefined ? undefined : meanSquare(tracer, graph, { name: root, heads });
    if (norm !== undefined) return { input: heads, norm };
  }
  return undefined;
}

/** Whether the last axis holds the numbers of one head each time, in any order: as many may be some of every head. */
export function hasWholeHeads(tracer: Tracer, { columns, headSize, projection }: HeadView, { origin }: Trace): boolean {
  const { source } = tracer.sourceOf(origin[0]!);
  const heads = new Map(Array.from(columns, (column, i) => [column, columns[i - i % headSize]!]));
  const headOf = (from: number): number | undefined => heads.get((from - source.base) % projection.columns);
  return origin.every((from, i) => headOf(from) === headOf(origin[i - i % headSize]!));
}

/** What stands under the root in 1/√a. */
function inverseRootOf(tracer: Tracer, graph: Graph, name: string): string | undefined {
  const node = graph.producer(name);
  const [a, b] = node?.input ?? [];
  if (node?.opType === "Pow" && numberOf(tracer, graph, b) === -0.5) return a;
  if (node?.opType === "Reciprocal") return rootOf(tracer, graph, a);
  return node?.opType === "Div" && numberOf(tracer, graph, a) === 1 ? rootOf(tracer, graph, b) : undefined;
}

/** What stands under the root in √a. */
function rootOf(tracer: Tracer, graph: Graph, name: string | undefined): string | undefined {
  const node = name === undefined ? undefined : graph.producer(name);
  if (node?.opType === "Sqrt") return node.input[0];
  return node?.opType === "Pow" && numberOf(tracer, graph, node.input[1]) === 0.5 ? node.input[0] : undefined;
}

/** Reads mean(heads²) + ε over the last axis. */
function meanSquare(
  tracer: Tracer,
  graph: Graph,
  { name, heads }: { readonly name: string; readonly heads: string },
): HeadNorm | undefined {
  const sum = graph.producer(name);
  if (sum?.opType !== "Add") return undefined;
  for (const [a, b] of [sum.input, sum.input.toReversed()]) {
    const epsilon = numberOf(tracer, graph, b);
    const mean = graph.producer(a!);
    if (epsilon === undefined || mean?.opType !== "ReduceMean") continue;
    const square = graph.producer(mean.input[0]!);
    const squared = (square?.opType === "Pow" && numberOf(tracer, graph, square.input[1]) === 2) ||
      (square?.opType === "Mul" && square.input[1] === heads);
    if (squared && square!.input[0] === heads && isMeanOfLast(tracer, graph, mean)) return { epsilon, mean };
  }
  return undefined;
}

/** Whether a ReduceMean runs over the last axis alone, and keeps it. */
export function isMeanOfLast(tracer: Tracer, graph: Graph, mean: NodeProto): boolean {
  const axes = intsAttribute(mean, "axes") ?? (mean.input[1] ? tracer.value(graph, mean.input[1]).data : undefined);
  const rank = tracer.value(graph, mean.input[0]!).shape?.length;
  const last = axes?.length === 1 && (axes[0] === -1 || axes[0] === rank! - 1);
  return last && intAttribute(mean, "keepdims", 1) === 1;
}

/** A constant of one number. */
function numberOf(tracer: Tracer, graph: Graph, name: string | undefined): number | undefined {
  const value = name === undefined ? undefined : tracer.value(graph, name);
  return value?.constant && value.data?.length === 1 ? value.data[0] : undefined;
}
