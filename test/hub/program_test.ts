/** The program with models of a hub: the same report as from a folder, external data through the cache, readiness. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert/mod.js";
import { concat } from "@std/bytes/mod.js";
import { create } from "@bufbuild/protobuf";
import type { CompressionReport } from "../../src/compress/artifact.ts";
import { decodeModel, encodeModelPieces } from "../../src/onnx/codec.ts";
import { StringStringEntryProtoSchema, TensorProto_DataLocation } from "../../src/onnx/gen/onnx_pb.ts";
import type { Files } from "../support/hub.ts";
import { bertQa, HubBench } from "../support/hub_cache.ts";
import { runProgram, ServerProcess } from "../support/program.ts";

const folder = new URL("../testdata/serving/bert-qa/", import.meta.url).pathname;

/** Where the program finds the hub, and keeps what it fetches. */
function variables({ hub, cacheFolder }: HubBench): Record<string, string> {
  return { HF_ENDPOINT: hub.endpoint, HF_HOME: cacheFolder, HF_HUB_CACHE: "", HF_TOKEN: "", HF_HUB_OFFLINE: "" };
}

/** Compresses to JSON; gives the report without what differs between two runs. */
async function compressed(model: string, out: string, env: Record<string, string>): Promise<object> {
  const { code, stdout, stderr } = await runProgram(
    ["compress", "--model", model, "--out", out, "--ranks", "8,4,4", "--device", "cpu", "--cache-dir", "off", "--json"],
    env,
  );
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout, (key, value) => key === "seconds" ? undefined : value);
}

Deno.test("compress of a hub's model gives the report of the same model in a folder", async () => {
  await using bench = new HubBench();
  const commit = bench.hub.commit("test/bert-qa", bertQa);
  const env = variables(bench);
  const local = await compressed(folder, `${bench.cacheFolder}/local`, env);
  const fetched = await compressed("hf:test/bert-qa", `${bench.cacheFolder}/fetched`, env);
  assertEquals(fetched, { ...local, model: "test/bert-qa" });
  const offline = await runProgram(
    ["spectrum", "--model", `hf:test/bert-qa@${commit}`, "--cache-dir", "off", "--device", "cpu", "--json"],
    { ...env, HF_HUB_OFFLINE: "1" },
  );
  assertEquals(offline.code, 0, offline.stderr);
  assertStringIncludes(offline.stderr, `model hf:test/bert-qa@${commit}:onnx/model.onnx`);
  // What was written stands alone: nothing in it leads into the cache.
  for (const { name, isSymlink } of Deno.readDirSync(`${bench.cacheFolder}/fetched/onnx`)) assert(!isSymlink, name);
});

Deno.test("external data of any name is fetched and read through the links of the cache", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/external", withExternalData(bertQa, "weights/bert.part"));
  const env = variables(bench);
  const local = await compressed(folder, `${bench.cacheFolder}/local`, env);
  const fetched = await compressed("hf:test/external", `${bench.cacheFolder}/fetched`, env);
  assertEquals(fetched, { ...local, model: "test/external" });
  const content = bench.hub.takeContentRequests();
  assertEquals(content.filter((path) => path.startsWith("onnx/")), ["onnx/model.onnx", "onnx/weights/bert.part"]);
  const args = ["--model", "hf:test/external", "--ranks", "8,4,4", "--device", "cpu", "--cache-dir", "off"];
  await using server = await ServerProcess.start(args, env);
  await server.ready();
  const answer = await server.post("/", { inputs: { question: "Who?", context: "It was Ada." } });
  assertEquals(answer.status, 200, await answer.text());
});

/** The same model with the weights of its graph in a file of their own. */
function withExternalData(files: Files, location: string): Files {
  const proto = decodeModel(files["onnx/model.onnx"]!);
  const weights: Uint8Array[] = [];
  let offset = 0;
  for (const tensor of proto.graph!.initializer) {
    const { rawData } = tensor;
    if (rawData.length < 1024) continue;
    const where = { location, offset: String(offset), length: String(rawData.length) };
    tensor.externalData = Object.entries(where).map(([key, value]) =>
      create(StringStringEntryProtoSchema, { key, value })
    );
    tensor.dataLocation = TensorProto_DataLocation.EXTERNAL;
    tensor.rawData = new Uint8Array();
    weights.push(rawData);
    offset += rawData.length;
  }
  const join = (pieces: readonly Uint8Array[]) => concat([...pieces]) as Uint8Array<ArrayBuffer>;
  return {
    ...files,
    "onnx/model.onnx": join(encodeModelPieces(proto)),
    [`onnx/${location}`]: join(weights),
  };
}

Deno.test("start serves a hub's model, by the hub's name, and tells how far the download is", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const held = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  // The graph, nearly all of the bytes, comes last: it waits until readiness was looked at.
  bench.hub.intercept = async (_, path) => {
    if (path.endsWith("/onnx/model.onnx")) {
      asked.resolve();
      await held.promise;
    }
    return undefined;
  };
  const args = ["--model", "hf:test/bert-qa", "--ranks", "8,4,4", "--device", "cpu", "--cache-dir", "off"];
  await using server = await ServerProcess.start(args, variables(bench));
  await asked.promise;
  const loading = await fetch(`${server.url}/health/ready`);
  const { state, progress } = await loading.json();
  assertEquals([loading.status, state], [503, "loading"]);
  const sizes = Object.entries(bertQa).filter(([path]) => path !== "expected.json").map(([, { length }]) => length);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const share = Math.floor(100 * (total - bertQa["onnx/model.onnx"]!.length) / total) / 100;
  assertEquals(progress, share);
  held.resolve();
  await server.ready();
  const answer = await server.post("/models/test/bert-qa", { inputs: { question: "Who?", context: "It was Ada." } });
  assertEquals(answer.status, 200, await answer.text());
});

Deno.test("a wrong name is wrong usage, before anything opens; a refusal is one line", async () => {
  await using bench = new HubBench();
  const spelled = await runProgram(["start", "--port", "0", "--model", "hf:bert-qa"], variables(bench));
  assertEquals([spelled.code, spelled.stdout], [2, ""]);
  assertStringIncludes(spelled.stderr, "tuckerd: --model must have the form hf:owner/name[@revision][:file.onnx]");
  const refused = await runProgram(["spectrum", "--model", "hf:test/none", "--cache-dir", "off"], variables(bench));
  assertEquals([refused.code, refused.stdout], [1, ""]);
  assertEquals(refused.stderr.trim().split("\n").length, 1, refused.stderr);
  assertStringIncludes(refused.stderr, "tuckerd: hf:test/none isn't on");
});

Deno.test("an encoder and a decoder are fetched and compressed together, and nothing else of the repository", async () => {
  await using bench = new HubBench();
  const t5 = new URL("../testdata/oracle/t5/", import.meta.url).pathname;
  const graph = (name: string) => Deno.readFile(`${t5}onnx-past/${name}.onnx`);
  const merged = await graph("decoder_model_merged");
  bench.hub.commit("test/pair", {
    "config.json": await Deno.readFile(`${t5}config.json`),
    "onnx/encoder_model.onnx": await graph("encoder_model"),
    "onnx/encoder_model_quantized.onnx": await graph("decoder_model"),
    "onnx/decoder_model.onnx": await graph("decoder_model"),
    "onnx/decoder_model_merged.onnx": merged,
    "onnx/decoder_model_merged_quantized.onnx": await graph("decoder_with_past_model"),
  });
  const env = variables(bench);
  const out = `${bench.cacheFolder}/out`;
  const report = await compressed("hf:test/pair", out, env) as CompressionReport;
  assertEquals(bench.hub.takeContentRequests().sort(), [
    "config.json",
    "onnx/decoder_model_merged.onnx",
    "onnx/encoder_model.onnx",
  ]);
  const graphs = new Set(report.layers.map(({ graph }) => graph));
  assertEquals([...graphs], ["encoder_model.onnx", "decoder_model_merged.onnx"]);
  assertEquals(report.model, "test/pair");
  const written = [...Deno.readDirSync(`${out}/onnx`)].map(({ name, isSymlink }) => [name, isSymlink]).sort();
  assertEquals(written, [["decoder_model_merged.onnx", false], ["encoder_model.onnx", false]]);
  assertEquals(await Deno.readFile(`${out}/config.json`), await Deno.readFile(`${t5}config.json`));
  await compressed("hf:test/pair:q8", `${bench.cacheFolder}/quantised`, env);
  assertEquals(bench.hub.takeContentRequests().sort(), [
    "onnx/decoder_model_merged_quantized.onnx",
    "onnx/encoder_model_quantized.onnx",
  ]);
  const { code, stderr } = await runProgram(["start", "--model", "hf:test/pair", "--port", "0"], env);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "several graphs (encoder_model.onnx, decoder_model_merged.onnx)");
});
