/**
 * The inference worker: one ONNX Runtime session and the factor tensors of the generations that share it. `create()` and
 * `run()` of onnxruntime-node block their thread for their whole duration, so they run here and never on the thread that
 * answers HTTP.
 *
 * @module
 */
import "./float16_patterns.ts";
import { InferenceSession, modelSettings, type Tensor } from "../onnx_runtime.ts";
import { TuckerdError } from "../errors.ts";
import type { LoadedSession, LoadRequest, WorkerReply, WorkerRequest } from "./protocol.ts";
import { checkWebgpu } from "./webgpu_check.ts";
import { fromOrt, tensorInfos, toOrt } from "./tensors.ts";
import { runError, sessionError } from "./ort_errors.ts";

/** The part of a worker's global scope that is used here. */
const scope = self as unknown as {
  onmessage: ((event: MessageEvent<WorkerRequest>) => void) | null;
  postMessage(reply: WorkerReply): void;
};

let session: InferenceSession | undefined;
const factors = new Map<number, Readonly<Record<string, Tensor>>>();

scope.onmessage = async ({ data }) => {
  try {
    scope.postMessage({ id: data.id, answer: await answer(data) });
  } catch (error) {
    scope.postMessage({ id: data.id, error: TuckerdError.from(error).toJSON() });
  }
};

function answer(message: WorkerRequest): Promise<Extract<WorkerReply, { answer: unknown }>["answer"]> {
  switch (message.call) {
    case "load":
      return load(message.request);
    case "install":
      return Promise.resolve(install(message.request));
    case "forget":
      factors.delete(message.request.generation);
      return Promise.resolve(undefined);
    case "run":
      return run(message.request);
    case "close":
      return close();
  }
}

async function load({ graph, provider, threads }: LoadRequest): Promise<LoadedSession> {
  if (provider === "webgpu") await checkWebgpu();
  const options: InferenceSession.SessionOptions = {
    executionProviders: [provider],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3, // errors; they are thrown as well
    extra: modelSettings(provider),
  };
  try {
    session = "bytes" in graph
      ? await InferenceSession.create(graph.bytes, options)
      : await InferenceSession.create(graph.path, options);
  } catch (error) {
    throw sessionError(error, graph);
  }
  return {
    provider,
    inputs: tensorInfos(session.inputMetadata),
    outputs: tensorInfos(session.outputMetadata),
  };
}

function install({ generation, feeds }: Extract<WorkerRequest, { call: "install" }>["request"]): undefined {
  const tensors = Object.entries(feeds).map(([name, { shape, data }]) =>
    [name, toOrt({ type: "float32", shape, data })] as const
  );
  factors.set(generation, Object.fromEntries(tensors));
}

async function run(
  { generation, inputs }: Extract<WorkerRequest, { call: "run" }>["request"],
): Promise<Extract<WorkerReply, { answer: unknown }>["answer"]> {
  const feeds: Record<string, Tensor> = { ...factors.get(generation) };
  for (const [name, tensor] of Object.entries(inputs)) feeds[name] = toOrt(tensor);
  let outputs: InferenceSession.OnnxValueMapType;
  try {
    outputs = await openSession().run(feeds);
  } catch (error) {
    throw runError(error, generation);
  }
  return Object.fromEntries(
    Object.entries(outputs).map(([name, tensor]) => [name, fromOrt(name, tensor as Tensor)]),
  );
}

async function close(): Promise<undefined> {
  factors.clear();
  await session?.release();
  session = undefined;
}

function openSession(): InferenceSession {
  if (session === undefined) throw new TypeError("The inference worker was asked to run before it loaded a session");
  return session;
}
