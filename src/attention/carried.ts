/**
 * Which element of a context an element behind it carries, where more is done on the way than moving and scaling: a norm, a gate,
 * a quantisation. Those keep every element in its place, so places can be followed back through them as through movements.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { nodeName, type NodeProto, operatorOf } from "../onnx/node.ts";
import { sizeOf } from "../onnx/tensor.ts";
import { isElementwise } from "./trace/arithmetic.ts";
import { movementOf } from "./trace/movement.ts";
import type { Tracer } from "./trace/tracer.ts";
import { broadcastIndex } from "./trace/value.ts";

/** For every element of a value the flat index of the context's element that it carries, −1 where it carries none. */
export interface Carried {
  readonly shape: readonly number[];
  readonly index: Int32Array;
  /** The first operator on the way that does more than moving. */
  readonly changedBy: string | undefined;
}

/** From which value back to which. */
export interface Way {
  readonly name: string;
  readonly context: string;
}

/** The places of a value's elements in the context; undefined where it carries none, a text where two are mixed in one element. */
export function carriedFrom(tracer: Tracer, graph: Graph, { name, context }: Way): Carried | string | undefined {
  const known = new Map<string, Carried | string | undefined>();
  const follow = (value: string): Carried | string | undefined => {
    if (!known.has(value)) known.set(value, step(value));
    return known.get(value);
  };
  const step = (value: string): Carried | string | undefined => {
    const { shape } = tracer.value(graph, value);
    if (shape === undefined) return undefined;
    if (value === context) {
      return {
        shape,
        index: Int32Array.from({ length: sizeOf(shape) }, (_, i) => i),
        changedBy: undefined,
      };
    }
    const node = graph.producer(value);
    if (node === undefined || tracer.projection(graph, node) !== undefined) return undefined;
    const moved = movementOf(node, node.input.map((input) => input === "" ? undefined : tracer.value(graph, input)));
    if (moved !== undefined) {
      const parts = moved.dataInputs.map((i) => ({ name: node.input[i]!, carried: follow(node.input[i]!) }));
      const output = moved.outputs[node.output.indexOf(value)]!;
      return movedElements(tracer, graph, { parts, ...output });
    }
    return kept(node, shape, keepingInputs(node).map(follow));
  };
  return follow(name);
}

/** Inputs whose elements a node keeps in their places. */
function keepingInputs(node: NodeProto): readonly string[] {
  if (node.opType.endsWith("Normalization")) return node.input.slice(0, 1);
  if (!isElementwise(node)) return [];
  return (node.opType === "Where" ? node.input.slice(1) : node.input).filter((input) => input !== "");
}

/** An operator element by element: at most one context element may come together in each. */
function kept(
  node: NodeProto,
  shape: readonly number[],
  operands: readonly (Carried | string | undefined)[],
): Carried | string | undefined {
  let all: Int32Array | undefined;
  let changedBy: string | undefined;
  for (const operand of operands) {
    if (operand === undefined) continue;
    if (typeof operand === "string") return operand;
    const index = broadcastIndex(operand.shape, shape).map((from) => operand.index[from]!);
    changedBy ??= operand.changedBy;
    if (all === undefined) all = index;
    else if (index.some((place, i) => place !== all![i])) {
      return `${node.opType} (${nodeName(node)}) mixes its elements`;
    }
  }
  return all && { shape, index: all, changedBy: changedBy ?? `${operatorOf(node)} (${nodeName(node)})` };
}

function movedElements(
  tracer: Tracer,
  graph: Graph,
  { parts, shape, index }: {
    readonly parts: readonly { readonly name: string; readonly carried: Carried | string | undefined }[];
    readonly shape: readonly number[];
    readonly index?: () => Int32Array;
  },
): Carried | string | undefined {
  const mixed = parts.find(({ carried }) => typeof carried === "string")?.carried;
  if (mixed !== undefined || parts.every(({ carried }) => carried === undefined)) return mixed;
  const joined = Int32Array.from(
    parts.flatMap(({ name, carried }) =>
      carried === undefined
        ? new Array<number>(sizeOf(tracer.value(graph, name).shape ?? [])).fill(-1)
        : Array.from((carried as Carried).index)
    ),
  );
  const changedBy = parts.map(({ carried }) => (carried as Carried | undefined)?.changedBy).find((by) =>
    by !== undefined
  );
  return { shape, changedBy, index: index === undefined ? joined : index().map((from) => joined[from]!) };
}
