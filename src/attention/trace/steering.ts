/**
 * Movements by numbers that the graph works out: where those depend on sizes, elements move to other places in other calls.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import type { NodeProto } from "../../onnx/node.ts";
import { agreedData, type ProbeRun } from "./evaluate.ts";

/** Movements that are told by inputs what goes where. */
const STEERED = new Set(["Slice", "Gather", "GatherND", "Split"]);

/** Whether other elements may come to a place in other calls. Where a slice only ends elsewhere, its elements are the same. */
export function isSteered(runs: readonly [ProbeRun, ProbeRun], graph: Graph, node: NodeProto): boolean {
  if (!STEERED.has(node.opType)) return false;
  const steering = node.input.slice(1).map((input) => agreedNumbers(runs, graph, input));
  if (node.opType !== "Slice" || steering.length === 0) return steering.includes(undefined);
  const [starts, , axes, steps] = steering;
  return starts?.every((start) => start >= 0) !== true || axes === undefined ||
    steps?.some((step) => step < 0) === true ||
    node.input.length > 4 && steps === undefined;
}

/** Numbers that steer a movement in every call; none where the node isn't given any, undefined where they differ between the probes. */
export function agreedNumbers(
  runs: readonly [ProbeRun, ProbeRun],
  graph: Graph,
  name: string | undefined,
): readonly number[] | undefined {
  if (name === undefined || name === "") return [];
  const known = agreedData(runs, graph, name);
  return known && Array.from(known.data);
}
