/**
 * Small graphs run by ONNX Runtime on the CPU. Every run costs tens of microseconds, and what passes between two runs is
 * written to new memory and read again: steps that follow each other anyway are one graph.
 *
 * @module
 */
import { InferenceSession, Tensor } from "../onnx_runtime.ts";
import { availableThreads } from "../machine.ts";
import { encodeModel, type SmallGraph } from "./graph_model.ts";

/** Float arrays that graphs take; all of one run have the same type. */
export type FloatArray = Float32Array | Float64Array;

/** Numbers under a shape. */
export interface GraphInput<T extends FloatArray> {
  readonly data: T;
  readonly dims: readonly number[];
}

/** Sessions by the names of their graphs. */
let sessions: Map<string, Promise<InferenceSession>> | undefined;

/**
 * Runs a graph.
 *
 * @param name stands for the graph: it is encoded and loaded when its name is first used
 * @param dims shape of the output
 */
export async function runGraph<T extends FloatArray>(
  name: string,
  make: () => SmallGraph,
  inputs: Readonly<Record<string, GraphInput<T>>>,
  dims: readonly number[],
): Promise<T> {
  const session = await sessionFor(name, make);
  const given = Object.entries(inputs);
  const Type = given[0]![1].data.constructor as new (length: number) => T;
  const result = new Type(dims.reduce((product, size) => product * size, 1));
  const feeds = Object.fromEntries(given.map(([input, { data, dims }]) => [input, tensorOf(data, dims)]));
  // the result's memory is handed over: what ONNX Runtime allocates itself, it copies
  await session.run(feeds, { [session.outputNames[0]!]: tensorOf(result, dims) });
  return result;
}

function tensorOf(data: FloatArray, dims: readonly number[]): Tensor {
  return data instanceof Float32Array ? new Tensor("float32", data, dims) : new Tensor("float64", data, dims);
}

/** One session per graph; a failed creation is forgotten. */
function sessionFor(name: string, make: () => SmallGraph): Promise<InferenceSession> {
  sessions ??= new Map();
  const known = sessions.get(name);
  if (known !== undefined) return known;
  const created = InferenceSession.create(encodeModel(make()), {
    executionProviders: ["cpu"],
    intraOpNumThreads: availableThreads(),
    enableCpuMemArena: false,
    // Threads that spin for work between the many short calls take the cores from whoever needs them: on busy cores,
    // decompositions took five to ten times as long.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
    graphOptimizationLevel: "disabled",
  });
  sessions.set(name, created);
  created.catch(() => sessions?.delete(name));
  return created;
}
