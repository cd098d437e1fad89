/** Traces of one attention are given back before the next one is judged, and following again gives the same. */
import { assert, assertEquals, assertGreater } from "@std/assert/mod.js";
import { writeSyntheticModel } from "../../scripts/bench/synthetic_model.ts";
import { analyse } from "../../src/attention/find.ts";
import { probeRuns } from "../../src/attention/trace/evaluate.ts";
import { Tracer } from "../../src/attention/trace/tracer.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { oracleExports } from "../support/oracle.ts";
import { rotaryDecoder } from "../support/rotary_decoder.ts";

/** Most bytes of traces that `work` holds when it gives some or all back. */
async function mostTraceBytes(work: () => Promise<void>): Promise<number> {
  let most = 0;
  const { forgetUnused, forgetAll } = Tracer.prototype;
  const watched = (forget: () => void) =>
    function (this: Tracer): void {
      most = Math.max(most, this.traceBytes);
      forget.call(this);
    };
  Tracer.prototype.forgetUnused = watched(forgetUnused);
  Tracer.prototype.forgetAll = watched(forgetAll);
  try {
    await work();
  } finally {
    Object.assign(Tracer.prototype, { forgetUnused, forgetAll });
  }
  return most;
}

function rotary(layers: number): Promise<OnnxModel> {
  return Promise.resolve(rotaryDecoder({ thetas: new Array<number>(layers).fill(10000), rotated: 8 }));
}

async function synthetic(layers: number): Promise<OnnxModel> {
  const folder = await Deno.makeTempDir();
  try {
    const sizes = { hiddenSize: 32, heads: 4, headSize: 8, feedForward: 64, weights: "float32" } as const;
    await writeSyntheticModel(folder, { ...sizes, layers });
    return await loadModel(`${folder}/model.onnx`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (
  const [what, model] of [
    ["attention", synthetic],
    ["rotated keys behind a cache", rotary],
  ] as const
) {
  Deno.test(`finding ${what} holds the traces of two layers at most`, () => holdsTwoLayers(model));
}

async function holdsTwoLayers(make: (layers: number) => Promise<OnnxModel>): Promise<void> {
  const most = async (layers: number): Promise<number> => {
    const model = await make(layers);
    const bytes = await mostTraceBytes(() => {
      assertEquals(analyse(model).blocks.length, layers);
      return Promise.resolve();
    });
    assertEquals(analyse(model).tracer.traceBytes, 0, "traces stay when the analysis is done");
    return bytes;
  };
  const [one, two, eight] = [await most(1), await most(2), await most(8)];
  // The three projections of a layer, [2, 3, 32], as they are: 20 bytes an element.
  assertGreater(one, 3 * 2 * 3 * 32 * 20);
  assert(two <= 2 * one, `${two} bytes for two layers, ${one} for one`);
  assertEquals(eight, two);
}

Deno.test("what is traced again has the origins that it had, whichever value is first", async () => {
  for (const { model: name, file, path } of [...oracleExports("gpt2"), ...oracleExports("t5")]) {
    const model = await loadModel(path);
    const graph = new Graph(model.proto.graph!);
    const tracer = new Tracer(probeRuns(graph, model.folder), model.folder);
    const values = graph.proto.node.flatMap(({ output }) => output);
    const traces = values.map((value) => structuredClone(tracer.trace(graph, value)));
    const first = tracer.trace(graph, values[0]!)!;
    assertGreater(first.origin.length, 0);
    tracer.forgetAll();
    assertEquals(tracer.traceBytes, 0);
    assertEquals([first.origin, first.scale, first.offset].map(({ length }) => length), [0, 0, 0]);
    for (const [i, value] of [...values.entries()].reverse()) {
      assertEquals(tracer.trace(graph, value), traces[i], `${name}/${file}: ${value}`);
      if (i % 3 === 0) tracer.forgetUnused();
    }
  }
});
