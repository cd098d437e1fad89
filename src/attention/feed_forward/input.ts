/**
 * From the second linear layer of a feed-forward network back to the first.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import { intAttribute, type NodeProto } from "../../onnx/node.ts";
import { isElementwise } from "../trace/arithmetic.ts";
import type { Projection } from "../trace/projection.ts";
import type { Tracer } from "../trace/tracer.ts";
import { axisOf } from "../trace/value.ts";

/** Longest way back, in nodes: the longest spelling of GELU takes about 15. */
const REACH = 64;

/** Operators that `isElementwise` counts by their shapes, but that mix elements. */
const MIXING = new Set(["Softmax", "LogSoftmax", "CumSum", "Trilu"]);
/** Element-wise operators that keep a linear layer linear, as long as one operand is constant. */
const LINEAR = new Set(["Add", "Sub", "Sum", "Neg", "Mul", "Div"]);
const PRODUCTS = new Set(["Mul", "Div"]);
const TRANSPARENT = new Set(["Identity", "Cast", "Dropout"]);
const RESHAPES = new Set(["Reshape", "Squeeze", "Unsqueeze", "Flatten"]);

/** The first layer: one projection, or the gate and its partner. */
export interface FeedForwardInput {
  readonly fc_in: Projection;
  readonly fc_up?: Projection;
}

/** What the walk back has met. */
interface Walk {
  readonly tracer: Tracer;
  readonly graph: Graph;
  /** First layers, and whether an activation stands behind them. */
  readonly leaves: Map<Projection, boolean>;
  readonly seen: Set<string>;
}

/** The first layer of a network whose second is `output`; undefined where it isn't the second of any. */
export function readInput(tracer: Tracer, output: Projection): FeedForwardInput | undefined {
  const walk: Walk = { tracer, graph: output.graph, leaves: new Map(), seen: new Set() };
  if (!follow(walk, output.stream, { activated: false, depth: 0 })) return undefined;
  const leaves = [...walk.leaves];
  const [first, second] = leaves.sort(([, a], [, b]) => Number(b) - Number(a));
  if (first === undefined || leaves.length > 2 || !(first[1] || second !== undefined)) return undefined;
  const inputs = leaves.map(([projection]) => projection);
  const { rows: width, columns } = output;
  const fits = inputs.every((projection) =>
    projection.rows === columns && projection.stream === inputs[0]!.stream &&
    // One matrix for gate and partner side by side is twice as wide.
    (projection.columns === width || (inputs.length === 1 && projection.columns === 2 * width))
  );
  if (!fits) return undefined;
  return { fc_in: first[0], ...(second === undefined ? {} : { fc_up: second[0] }) };
}

/** Whether a value is made of constants and first layers only; those are collected. */
function follow(walk: Walk, name: string, at: { readonly activated: boolean; readonly depth: number }): boolean {
  const { tracer, graph, leaves, seen } = walk;
  if (tracer.value(graph, name).constant) return true;
  const node = graph.scopeOf(name) === graph ? graph.producer(name) : undefined;
  if (node === undefined || at.depth > REACH) return false;
  const projection = tracer.projection(graph, node);
  if (projection !== undefined) {
    leaves.set(projection, (leaves.get(projection) ?? false) || at.activated);
    return true;
  }
  const key = `${name} ${at.activated}`;
  if (seen.has(key)) return true;
  seen.add(key);
  const inputs = node.input.filter((input) => input !== "");
  if (keepsElements(walk, node)) return follow(walk, inputs[0]!, { ...at, depth: at.depth + 1 });
  if (!isElementwise(node) || MIXING.has(node.opType)) return false;
  const varying = inputs.filter((input) => !tracer.value(graph, input).constant);
  // A product of two values bends them, a gate; the activation is what makes one of the two the gate.
  const bends = !LINEAR.has(node.opType) || (PRODUCTS.has(node.opType) && new Set(varying).size < varying.length);
  const activated = at.activated || bends;
  return varying.every((input) => follow(walk, input, { activated, depth: at.depth + 1 }));
}

/** Operators after which the last dimension holds the same elements, or a part of them. */
function keepsElements({ tracer, graph }: Walk, node: NodeProto): boolean {
  if (TRANSPARENT.has(node.opType)) return true;
  const before = tracer.value(graph, node.input[0]!).shape;
  if (before === undefined) return false;
  if (node.opType === "Split") return axisOf(intAttribute(node, "axis", 0), before.length) === before.length - 1;
  return RESHAPES.has(node.opType) && tracer.value(graph, node.output[0]!).shape?.at(-1) === before.at(-1);
}
