/**
 * A probe run: every node of a graph in order, with shapes in place of numbers, except for the small integers and scales
 * that exported graphs compute from shapes.
 *
 * @module
 */
import { type Graph } from "../../onnx/graph.ts";
import { inOrder } from "../../onnx/order.ts";
import { type NodeProto, subgraphsOf } from "../../onnx/node.ts";
import { sizeOf } from "../../onnx/tensor.ts";
import { cast, elementwise, fromSizes } from "./arithmetic.ts";
import { constantNodeArray, tensorValue } from "./constants.ts";
import { inferShapes, windowSizes } from "./infer.ts";
import { movementOf } from "./movement.ts";
import { enlarged, PROBE, type Probe, ProbeSizes, SECOND_PROBE } from "./probe.ts";
import { DATA_LIMIT, shaped, UNKNOWN, type Value } from "./value.ts";

/** What a probe run found out about every value of a graph and its subgraphs. */
export class ProbeRun {
  readonly #values = new Map<Graph, Map<string, Value>>();
  readonly #sizes: ProbeSizes;
  readonly #folder: string;

  /** Evaluates a main graph with all its subgraphs; `folder` is where its external data lies. */
  constructor(graph: Graph, probe: Probe, folder: string) {
    this.#sizes = new ProbeSizes(probe, graph.proto.input);
    this.#folder = folder;
    this.#evaluate(graph);
  }

  /** What is known of a value visible from `graph`. */
  value(graph: Graph, name: string): Value {
    const scope = graph.scopeOf(name);
    return (scope && this.#values.get(scope)?.get(name)) ?? UNKNOWN;
  }

  #evaluate(graph: Graph): void {
    const values = new Map<string, Value>();
    this.#values.set(graph, values);
    for (const tensor of graph.proto.initializer) values.set(tensor.name, tensorValue(tensor, this.#folder));
    for (const input of graph.proto.input) {
      if (!values.has(input.name)) values.set(input.name, this.#sizes.valueOf(input));
    }
    const annotated = new Map(graph.proto.valueInfo.map((info) => [info.name, info]));
    for (const node of inOrder(graph.proto.node)) {
      for (const subgraph of graph.subgraphs) if (subgraph.owner === node) this.#evaluate(subgraph);
      const outputs = this.#outputs(graph, node);
      node.output.forEach((name, i) => {
        if (name === "") return;
        const value = outputs[i] ?? UNKNOWN;
        const info = value.shape === undefined ? annotated.get(name) : undefined;
        values.set(name, info === undefined ? value : this.#sizes.annotated(info));
      });
    }
  }

  #outputs(graph: Graph, node: NodeProto): readonly (Value | undefined)[] {
    if (node.opType === "Constant") return [this.#constant(node)];
    const inputs = node.input.map((name) => name === "" ? undefined : this.value(graph, name));
    const constant = inputs.length > 0 && inputs.every((input) => input === undefined || input.constant);
    const outputs = node.opType === "If" ? this.#branch(graph, node, inputs[0]) : evaluateNode(node, inputs);
    return constant ? outputs.map((value) => value && { ...value, constant }) : outputs;
  }

  #constant(node: NodeProto): Value | undefined {
    const array = constantNodeArray(node, this.#folder);
    if (array === undefined) return undefined;
    const type = node.attribute[0];
    const integer = type?.t === undefined
      ? type?.name.startsWith("value_int") === true
      : tensorValue(type.t, "").integer;
    return { ...array, data: sizeOf(array.shape) <= DATA_LIMIT ? array.data : undefined, integer, constant: true };
  }

  /** If: the branch that a known condition picks; otherwise what both agree on. */
  #branch(graph: Graph, node: NodeProto, condition: Value | undefined): (Value | undefined)[] {
    const branches = new Map([...subgraphsOf(node)].map(({ attribute, graph: proto }) => [
      attribute,
      graph.subgraphs.find((subgraph) => subgraph.proto === proto)!,
    ]));
    const outputs = (attribute: string): Value[] => {
      const branch = branches.get(attribute)!;
      return branch.proto.output.map(({ name }) => this.value(branch, name));
    };
    const known = condition?.data?.[0];
    if (known !== undefined) return outputs(known !== 0 ? "then_branch" : "else_branch");
    const otherwise = outputs("else_branch");
    return outputs("then_branch").map((value, i) =>
      String(value.shape) === String(otherwise[i]?.shape) ? shaped(value.shape, value.integer) : UNKNOWN
    );
  }
}

/** Largest enlargement that is tried, and the largest for the sake of shapes that smaller ones don't fit. */
const [ENLARGEMENT_LIMIT, FITTING_LIMIT] = [4096, 64];

/**
 * Runs of a graph under both probes, in the smallest sizes that its convolutions and poolings can read (a speech encoder makes one
 * position of some hundred samples), and that fit what it cuts in equal parts: some vision models know only pictures of whole patches.
 */
export function probeRuns(graph: Graph, folder: string): [ProbeRun, ProbeRun] {
  let readable: [ProbeRun, ProbeRun] | undefined;
  for (let enlargement = 1;; enlargement *= 4) {
    const runs: [ProbeRun, ProbeRun] = [
      new ProbeRun(graph, enlarged(PROBE, enlargement), folder),
      new ProbeRun(graph, enlarged(SECOND_PROBE, enlargement), folder),
    ];
    if (enlargement < ENLARGEMENT_LIMIT && readsTooFew(graph, runs)) continue;
    if (runs.every((run) => fits(graph, run))) return runs;
    readable ??= runs;
    if (enlargement >= FITTING_LIMIT) return readable;
  }
}

/** Whether the way to every softmax is known, or unknown for another reason than that a size can't be cut in equal parts. */
function fits(graph: Graph, run: ProbeRun): boolean {
  let [known, cut] = [true, true];
  for (const scope of graph.all()) {
    for (const node of scope.proto.node) {
      const shapeOf = (name: string | undefined) => name === undefined ? undefined : run.value(scope, name).shape;
      if (node.opType === "Softmax" && shapeOf(node.input[0]) === undefined) known = false;
      const target = node.opType === "Reshape" && node.input[1] ? run.value(scope, node.input[1]).data : undefined;
      if (target !== undefined && shapeOf(node.input[0]) !== undefined && shapeOf(node.output[0]) === undefined) {
        cut = false;
      }
    }
  }
  return known || cut;
}

/**
 * Whether a convolution or pooling over a dynamic dimension makes fewer than two positions, or as many in both runs: what follows it
 * could be told apart then neither from the batch nor from fixed sizes.
 */
function readsTooFew(graph: Graph, runs: readonly [ProbeRun, ProbeRun]): boolean {
  for (const scope of graph.all()) {
    for (const node of scope.proto.node) {
      const inputs = runs.map((run) => node.input.map((name) => run.value(scope, name)));
      const [a, b] = inputs.map((values) => windowSizes(node, values));
      if (a === undefined || b === undefined) continue;
      const [read, readToo] = inputs.map(([x]) => x?.shape?.slice(2) ?? []);
      const few = a.some((size, i) => read![i] !== readToo![i] && (size < 2 || b[i]! < 2 || size === b[i]));
      if (few) return true;
    }
  }
  return false;
}

function evaluateNode(node: NodeProto, inputs: readonly (Value | undefined)[]): readonly (Value | undefined)[] {
  if (node.opType === "Cast" && inputs[0] !== undefined) return [cast(node, inputs[0])];
  const movement = movementOf(node, inputs);
  if (movement !== undefined) {
    const moved = movement.dataInputs.map((i) => inputs[i]!);
    const known = moved.every(({ data }) => data !== undefined);
    const joined = known ? moved.flatMap(({ data }) => Array.from(data!)) : undefined;
    const integer = moved.every((value) => value.integer);
    return movement.outputs.map(({ shape, index }) => {
      const data = joined === undefined || sizeOf(shape) > DATA_LIMIT
        ? undefined
        : index === undefined
        ? joined
        : Float64Array.from(index(), (i) => joined[i]!);
      return { shape, data, integer, constant: false };
    });
  }
  const value = elementwise(node, inputs) ?? fromSizes(node, inputs);
  return value === undefined ? inferShapes(node, inputs) : [value];
}

/** The number that two runs agree on element by element, or undefined where a value depends on the probe's sizes. */
export function agreedData(
  runs: readonly [ProbeRun, ProbeRun],
  graph: Graph,
  name: string,
): { readonly shape: readonly number[]; readonly data: ArrayLike<number> } | undefined {
  const [first, second] = runs.map((run) => run.value(graph, name)) as [Value, Value];
  if (first.data === undefined || first.shape === undefined) return undefined;
  if (!first.constant) {
    if (second.data?.length !== first.data.length) return undefined;
    for (let i = 0; i < first.data.length; i++) if (first.data[i] !== second.data[i]) return undefined;
  }
  return { shape: first.shape, data: first.data };
}
