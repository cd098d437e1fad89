/** Numbers of one layer at a time: what was decomposed stays in the store until it is written. */
import { assert, assertEquals, assertGreater, assertRejects, assertThrows } from "@std/assert/mod.js";
import { resolveOptions } from "../../src/compress/options.ts";
import { LayerTensors, type MakeLayer } from "../../src/compress/layer_tensors.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { encodeModel } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { temporaryFolder } from "../support/folder.ts";
import { nestedNumbers, oracleFormats, oracleReference, oracleTucker } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

/** Length of all arrays of numbers that are reached from a result. */
function numbersIn(value: unknown): number {
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce((total: number, part) => total + numbersIn(part), 0);
}

/** The keys that stores are asked for, until the end of the scope. */
function watchReads(): Disposable & { readonly reads: string[] } {
  const reads: string[] = [];
  const { read } = FactorStore.prototype;
  FactorStore.prototype.read = function (key): ReturnType<typeof read> {
    reads.push(key);
    return read.call(this, key);
  };
  return { reads, [Symbol.dispose]: () => void (FactorStore.prototype.read = read) };
}

Deno.test("factors of a model with external data are read when it is written, layer after layer, once", async () => {
  const { path } = oracleFormats().find(({ format }) => format === "external-per-tensor")!;
  await using opened = await openTestCompressor(path);
  const { compressor } = opened;
  using watched = watchReads();
  const { reads } = watched;
  await using folder = await temporaryFolder();
  const decomposed = await compressor.decompose(resolveOptions({ ranks: [12, 6, 2] }));
  assertEquals(decomposed.layers.length, 3);
  for (const { stored } of decomposed.layers) {
    assertEquals(numbersIn(stored), 0, "decomposed layers stay in memory");
    const { factors } = stored.decomposition;
    assertEquals(factors.kind === "tucker4" && factors.factors.u1.length, 36 * 12);
  }
  reads.splice(0);
  const { model } = await compressor.withFactors(decomposed, "full");
  assertEquals(reads, [], "layers are read before they are written");
  const later = [...model.later!.keys()];
  assert(["down", "up", "packed.b"].every((role) => later.includes(`tuckerd.layer1.${role}`)), `${later}`);
  const waiting = model.proto.graph!.initializer.filter(({ name }) => model.later!.has(name));
  assertEquals(waiting.length, later.length);
  assertEquals(numbersIn(waiting.map(({ rawData }) => rawData)), 0);
  assertThrows(() => encodeModel(model), TypeError, "use saveModel");
  await saveModel(model, `${folder.path}/out/model.onnx`);
  assertEquals([reads.length, new Set(reads).size], [3, 3]);
  assertGreater((await Deno.stat(`${folder.path}/out/model.onnx_data`)).size, 3 * 2 * 36 * 12 * 4);
});

Deno.test("reconstructions of a model with external data are made when it is written, layer after layer, once", async () => {
  const { path } = oracleFormats().find(({ format }) => format === "external-per-tensor")!;
  await using opened = await openTestCompressor(path);
  const { compressor } = opened;
  using watched = watchReads();
  const { reads } = watched;
  await using folder = await temporaryFolder();
  const half = oracleTucker("gpt2").interventions.find(({ name }) => name === "half-all-layers")!;
  const decomposed = await compressor.decompose(resolveOptions({ ranks: half.ranks }));
  reads.splice(0);
  const { model } = await compressor.withReconstructions(decomposed);
  assertEquals(reads, [], "layers are read before they are written");
  const waiting = model.proto.graph!.initializer.filter(({ name }) => model.later!.has(name));
  assertEquals(waiting.length, 3 * 2, "not the packed projection and the output of each layer");
  assertEquals(numbersIn(waiting.map(({ rawData }) => rawData)), 0);
  await saveModel(model, `${folder.path}/out/model.onnx`);
  assertEquals([reads.length, new Set(reads).size], [3, 3]);
  await using session = await TestSession.load({ path: `${folder.path}/out/model.onnx` });
  const { inputs } = oracleReference("gpt2").cases.find(({ name }) => name === "single")!;
  const expected = nestedNumbers(half.cases.find(({ name }) => name === "single")!.outputs["logits"]!);
  const { logits } = await session.run(inputs);
  assertNear(logits!.data, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what: "half ranks" });
});

Deno.test("tensors of a layer are made together, and given back when another layer's turn comes", async () => {
  const made: number[] = [];
  const kept: Float32Array[] = [];
  const tensors = new LayerTensors();
  const layer = (layer: number): MakeLayer => () => {
    made.push(layer);
    const both = [Float32Array.of(layer, 1), Float32Array.of(layer, 2)] as const;
    kept.push(...both);
    return Promise.resolve(new Map([["a", both[0]], ["b", both[1]]]));
  };
  const [first, second] = [layer(0), layer(1)];
  assertEquals([...await tensors.take(first, "a")], [0, 1]);
  assertEquals([...await tensors.take(first, "b")], [0, 2]);
  assertEquals([...await tensors.take(second, "b")], [1, 2]);
  assertEquals(made, [0, 1]);
  assertEquals([...await tensors.take(first, "a")], [0, 1], "not the other layer's a, which is left");
  assertEquals(kept.map(({ length }) => length), [2, 2, 0, 2, 2, 2]);
  await assertRejects(() => tensors.take(first, "c"), RangeError, "no tensor c");
});
