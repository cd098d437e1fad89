/** Fetching a model from a hub on loopback: what is asked for, what is kept, and what a second start asks for. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { gitBlob, sha256 } from "../support/hub.ts";
import { bertQa, bytes, HubBench } from "../support/hub_cache.ts";

const wanted = [
  "config.json",
  "onnx/model.onnx",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.txt",
];

/** Fails, and gives the message. */
async function failing(kind: string, work: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => work, TuckerdError);
  assertEquals(error.kind, kind, error.message);
  return error.message;
}

Deno.test("a first start fetches what the model needs, once, into the Hugging Face layout", async () => {
  await using bench = new HubBench();
  const commit = bench.hub.commit("test/bert-qa", {
    ...bertQa,
    "README.md": bytes("read me"),
    "model.safetensors": bytes("not needed"),
    "onnx/model_quantized.onnx": bytes("not chosen"),
  });
  const fetched = await bench.fetch("hf:test/bert-qa");
  const root = `${bench.cacheFolder}/models--test--bert-qa`;
  const graphPath = `${root}/snapshots/${commit}/onnx/model.onnx`;
  assertEquals(fetched, { graphPath, graphPaths: [graphPath], id: "test/bert-qa", commit });
  assertEquals(bench.hub.takeContentRequests().sort(), wanted);
  for (const path of wanted) {
    assertEquals(await Deno.readFile(`${root}/snapshots/${commit}/${path}`), bertQa[path], path);
  }
  assertEquals(await Deno.readTextFile(`${root}/refs/main`), commit);
  assertEquals(
    await Deno.readLink(`${root}/snapshots/${commit}/onnx/model.onnx`),
    `../../../blobs/${sha256(bertQa["onnx/model.onnx"]!)}`,
  );
  assertEquals(
    await Deno.readLink(`${root}/snapshots/${commit}/config.json`),
    `../../blobs/${gitBlob(bertQa["config.json"]!)}`,
  );
  const blobs = [...Deno.readDirSync(`${root}/blobs`)].map(({ name }) => name);
  assertEquals(blobs.filter((name) => !/^[0-9a-f]+$/.test(name)), []);
  assertEquals(bench.progress.at(-1), 1);
  assertEquals(bench.progress, [...bench.progress].sort((a, b) => a - b));
});

Deno.test("a second start asks for the commit only; a pinned one asks for nothing", async () => {
  await using bench = new HubBench();
  const commit = bench.hub.commit("test/bert-qa", bertQa);
  await bench.fetch("hf:test/bert-qa");
  bench.hub.seen.length = 0;
  bench.progress.length = 0;
  await bench.fetch("hf:test/bert-qa");
  assertEquals(bench.hub.seen.map(({ path }) => path), ["/api/models/test/bert-qa/revision/main"]);
  assertEquals(bench.progress, []);
  bench.hub.seen.length = 0;
  await bench.fetch(`hf:test/bert-qa@${commit}`);
  assertEquals(bench.hub.seen, []);
});

Deno.test("a branch that moves is followed, unchanged files aren't fetched again, a pinned commit stays", async () => {
  await using bench = new HubBench();
  const first = bench.hub.commit("test/bert-qa", bertQa);
  await bench.fetch("hf:test/bert-qa@main");
  bench.hub.takeContentRequests();
  const config = bytes('{"model_type":"bert","moved":true}');
  const second = bench.hub.commit("test/bert-qa", { ...bertQa, "config.json": config });
  const pinned = await bench.fetch(`hf:test/bert-qa@${first}`);
  assertEquals([pinned.commit, bench.hub.takeContentRequests()], [first, []]);
  const moved = await bench.fetch("hf:test/bert-qa@main");
  assertEquals([moved.commit, bench.hub.takeContentRequests()], [second, ["config.json"]]);
  assertEquals(await Deno.readFile(moved.graphPath.replace("onnx/model.onnx", "config.json")), config);
  assertEquals(await Deno.readFile(pinned.graphPath.replace("onnx/model.onnx", "config.json")), bertQa["config.json"]);
});

Deno.test("a branch isn't remembered before its snapshot is whole", async () => {
  await using bench = new HubBench();
  const first = bench.hub.commit("test/bert-qa", bertQa);
  await bench.fetch("hf:test/bert-qa");
  bench.hub.commit("test/bert-qa", { ...bertQa, "config.json": bytes("{}") });
  bench.hub.intercept = (_, path) => path.endsWith("config.json") ? new Response(null, { status: 500 }) : undefined;
  await failing("failed", bench.fetch("hf:test/bert-qa"));
  const offline = await bench.fetch("hf:test/bert-qa", { offline: true });
  assertEquals(offline.commit, first);
});

Deno.test("a file is chosen by name, with its own external data, and not another's", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/variants", {
    "config.json": bytes("{}"),
    "onnx/model.onnx": bytes("full"),
    "onnx/model.onnx_data": bytes("full data"),
    "onnx/model_q4.onnx": bytes("q4"),
    "onnx/model_q4.onnx_data": bytes("q4 data"),
    "onnx/model_q4.onnx_data_1": bytes("more q4 data"),
  });
  await bench.fetch("hf:test/variants@main:onnx/model_q4.onnx");
  assertEquals(bench.hub.takeContentRequests().sort(), [
    "config.json",
    "onnx/model_q4.onnx",
    "onnx/model_q4.onnx_data",
    "onnx/model_q4.onnx_data_1",
  ]);
  await bench.fetch("hf:test/variants");
  assertEquals(bench.hub.takeContentRequests().sort(), ["onnx/model.onnx", "onnx/model.onnx_data"]);
});

Deno.test("a decoder for later calls comes with the graph of its first, which holds weights that it has the results of", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/decoder", {
    "config.json": bytes("{}"),
    "onnx/decoder_model.onnx": bytes("full"),
    "onnx/decoder_model_q4.onnx": bytes("first"),
    "onnx/decoder_model_q4.onnx_data": bytes("first data"),
    "onnx/decoder_with_past_model_q4.onnx": bytes("later"),
  });
  const { graphPaths } = await bench.fetch("hf:test/decoder:onnx/decoder_with_past_model_q4.onnx");
  assertEquals(graphPaths.map((path) => path.split("/").at(-1)), ["decoder_with_past_model_q4.onnx"]);
  assertEquals(bench.hub.takeContentRequests().sort(), [
    "config.json",
    "onnx/decoder_model_q4.onnx",
    "onnx/decoder_model_q4.onnx_data",
    "onnx/decoder_with_past_model_q4.onnx",
  ]);
});

Deno.test("external data of any name is fetched where the graph names it", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/external", {
    "config.json": bytes("{}"),
    "model.onnx": bytes("graph"),
    "weights/layer.0": bytes("named"),
    "weights/layer.1": bytes("not named"),
    "pytorch_model.bin": bytes("not needed"),
  });
  const asked: string[] = [];
  const externalData = (path: string) => {
    asked.push(path);
    return Promise.resolve(["./weights/layer.0", "../pytorch_model.bin", "/etc/passwd"]);
  };
  const { graphPath } = await bench.fetch("hf:test/external", {}, { externalData });
  assertEquals(asked, [graphPath]);
  assertEquals(bench.hub.takeContentRequests().sort(), ["config.json", "model.onnx", "weights/layer.0"]);
});

Deno.test("offline, what is cached is used without a request, and what isn't is named", async () => {
  await using bench = new HubBench();
  const commit = bench.hub.commit("test/bert-qa", { ...bertQa, "onnx/model_fp16.onnx": bytes("half") });
  await bench.fetch("hf:test/bert-qa:onnx/model_fp16.onnx");
  bench.hub.seen.length = 0;
  const offline = { offline: true };
  assertEquals((await bench.fetch("hf:test/bert-qa:onnx/model_fp16.onnx", offline)).commit, commit);
  // The default is model.onnx, online as offline: the half-precision file that happens to be there doesn't stand in for it.
  const missing = await failing("not-found", bench.fetch("hf:test/bert-qa", offline));
  assertStringIncludes(missing, "HF_HUB_OFFLINE");
  assertStringIncludes(missing, "lacks onnx/model.onnx of");
  const unknown = await failing("not-found", bench.fetch("hf:test/other", offline));
  assertStringIncludes(unknown, "hf:test/other@main isn't in the cache");
  assertEquals(bench.hub.seen, []);
});

Deno.test("offline, a cache that another program filled is used as it is", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const { graphPath } = await bench.fetch("hf:test/bert-qa");
  await Deno.remove(`${bench.cacheFolder}/models--test--bert-qa/.tuckerd`, { recursive: true });
  assertEquals((await bench.fetch("hf:test/bert-qa", { offline: true })).graphPath, graphPath);
});

Deno.test("a start that is cancelled ends, and the next one goes on", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const abort = new AbortController();
  bench.hub.intercept = (_, path) => {
    if (path.endsWith("tokenizer.json")) abort.abort(new TuckerdError("cancelled", "stopping"));
    return undefined;
  };
  await failing("cancelled", bench.fetch("hf:test/bert-qa", {}, { signal: abort.signal }));
  bench.hub.intercept = () => undefined;
  bench.hub.takeContentRequests();
  await bench.fetch("hf:test/bert-qa");
  const asked = bench.hub.takeContentRequests();
  assert(!asked.includes("config.json") && asked.includes("tokenizer.json"), String(asked));
});

Deno.test("two processes that fetch the same model fetch each file once", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  // The first file's content waits until both processes are there, so that they overlap.
  const both = Promise.withResolvers<void>();
  let processes = 0;
  bench.hub.intercept = async (_, path) => {
    if (path.includes("/revision/") && ++processes === 2) both.resolve();
    if (path.endsWith("/config.json")) await both.promise;
    return undefined;
  };
  const script = new URL("../support/hub_child.ts", import.meta.url).pathname;
  const run = () =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", script, "hf:test/bert-qa"],
      env: { HF_ENDPOINT: bench.hub.endpoint, HF_HUB_CACHE: bench.cacheFolder, HF_TOKEN: "" },
      stdin: "null",
    }).output();
  const outputs = await Promise.all([run(), run()]);
  const decoder = new TextDecoder();
  for (const { code, stderr } of outputs) assertEquals(code, 0, decoder.decode(stderr));
  const [one, other] = outputs.map(({ stdout }) => decoder.decode(stdout));
  assertEquals(one, other);
  assertStringIncludes(one!, "/onnx/model.onnx");
  assertEquals(bench.hub.takeContentRequests().sort(), wanted);
});
