/** Models that are kept in several graphs: an encoder and a decoder, a decoder's first and later calls. Outputs are PyTorch's. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert/mod.js";
import { cacheSizes, checkSameCaches } from "../../src/compress/caches.ts";
import { openModelFolder, singleGraph } from "../../src/compress/model_folder.ts";
import { openGraphs } from "../../src/compress/model_graphs.ts";
import { type CompressionRequest, resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { type WriteFolderOptions, writeModelFolder } from "../../src/compress/write_folder.ts";
import { TuckerdError } from "../../src/errors.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { encodeModel, loadModel } from "../../src/onnx/model.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import type { CompressionReport } from "../../src/compress/artifact.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { temporaryFolder } from "../support/folder.ts";
import { greedy } from "../support/greedy.ts";
import { caseInputs, nestedNumbers, oracleReference, oracleTucker } from "../support/oracle.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { projection } from "../support/tiny_onnx.ts";

const testdata = new URL("../testdata/", import.meta.url).pathname;
const gpt2 = `${testdata}oracle_pairs/gpt2`;

interface Written extends AsyncDisposable {
  readonly report: CompressionReport;
  readonly folder: string;
  /** Layers that were decomposed. */
  readonly decomposed: number;
}

/** Compresses a folder; dispose the result to remove it. */
async function compressFolder(
  model: string,
  request: CompressionRequest,
  how: Omit<WriteFolderOptions, "out">,
): Promise<Written> {
  await using resources = new AsyncDisposableStack();
  const work = await Deno.makeTempDir();
  const store = resources.use(await FactorStore.open(work));
  const graphs = await openGraphs(await openModelFolder(model), { device: "cpu", store }, resources);
  const folder = `${work}/out`;
  const report = await writeModelFolder(graphs, resolveOptions(request), { out: folder, ...how });
  const decomposed = [...Deno.readDirSync(`${work}/factors`)]
    .reduce((sum, { name }) => sum + [...Deno.readDirSync(`${work}/factors/${name}`)].length, 0);
  return { report, folder, decomposed, [Symbol.asyncDispose]: () => Deno.remove(work, { recursive: true }) };
}

/** A folder with copies of files, by the names that they get. */
async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await Deno.makeTempDir();
  await Deno.mkdir(`${folder}/onnx`);
  for (const [name, from] of Object.entries(files)) {
    if (typeof from === "string") await Deno.copyFile(from, `${folder}/${name}`);
    else await Deno.writeFile(`${folder}/${name}`, from);
  }
  return folder;
}

for (const execution of ["factored", "dense"] as const) {
  Deno.test(`an encoder and its decoder, every attention at half ranks, ${execution}: PyTorch's outputs`, async () => {
    const { ranks, cases } = oracleTucker("t5").interventions.find(({ name }) => name === "half-all-and-cross")!;
    await using written = await compressFolder(`${testdata}oracle/t5`, { ranks }, { execution });
    const { folder, report } = written;
    assertEquals(report.layers.map(({ graph, layer }) => `${graph} ${layer}`), [
      "encoder_model.onnx 0",
      "encoder_model.onnx 1",
      "decoder_model.onnx 0",
      "decoder_model.onnx 1",
      "decoder_model.onnx 2",
      "decoder_model.onnx 3",
    ]);
    assertEquals(written.decomposed, 6);
    // 6 tensors of 24·8·4·4 numbers.
    assertEquals(report.totals.attentionParameters, 6 * 3072);
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/tuckerd.json`)), report);
    assert((await Deno.stat(`${folder}/config.json`)).isFile);
    await using encoder = await TestSession.load({ path: `${folder}/onnx/encoder_model.onnx` });
    await using decoder = await TestSession.load({ path: `${folder}/onnx/decoder_model.onnx` });
    for (const { name, outputs } of cases) {
      const { input_ids, attention_mask, decoder_input_ids } = caseInputs(oracleReference("t5"), name);
      const hidden = await encoder.run({ input_ids: input_ids!, attention_mask: attention_mask! });
      const states = hidden["last_hidden_state"]!;
      const wantedStates = nestedNumbers(outputs["encoder_last_hidden_state"]!);
      assertNear(states.data, wantedStates, {
        atol: 1e-3 * largestValue(wantedStates),
        rtol: 0,
        what: `${name} encoder`,
      });
      const { logits } = await decoder.run(
        { input_ids: decoder_input_ids!, encoder_attention_mask: attention_mask! },
        { encoder_hidden_states: states },
      );
      const wanted = nestedNumbers(outputs["logits"]!);
      assertNear(logits!.data, wanted, { atol: 1e-3 * largestValue(wanted), rtol: 0, what: `${name} logits` });
    }
  });
}

for (const cache of ["full", "per-head", "compressed"] as const) {
  Deno.test(`a decoder's first and later calls with a ${cache} cache: PyTorch's tokens, each layer decomposed once`, async () => {
    const { ranks, greedy: expected } = oracleTucker("gpt2").interventions.find(({ name }) =>
      name === "half-all-layers"
    )!;
    await using written = await compressFolder(gpt2, { ranks }, { execution: "factored", cache });
    const { folder, report } = written;
    assertEquals(written.decomposed, 3);
    const [first, later] = ["decoder_model.onnx", "decoder_with_past_model.onnx"].map((graph) =>
      report.layers.filter((layer) => layer.graph === graph)
    );
    const errors = first!.map(({ relativeError }) => relativeError);
    assertEquals(later!.map(({ relativeError }) => relativeError), errors);
    // 3 layers of 3 heads of 12, keys and values, float32; at r2 = 6 half of it, as z of 18. Both files speak of one cache.
    const after = { full: 864, "per-head": 432, compressed: 216 }[cache];
    assertEquals(report.totals.kvBytesPerToken, { before: 864, after });
    assertEquals(report.totals.attentionParameters, 2 * 3 * 36 * 36 * 4);
    await using start = await TestSession.load({ path: `${folder}/onnx/decoder_model.onnx` });
    await using goOn = await TestSession.load({ path: `${folder}/onnx/decoder_with_past_model.onnx` });
    const prompt = nestedNumbers(expected!.prompt);
    const wanted = nestedNumbers(expected!.new_tokens);
    assertEquals(await greedy(goOn, { prompt, count: wanted.length, first: start }), wanted);
  });
}

Deno.test("a decoder's first and later calls share z and the coefficients of rotated keys: PyTorch's tokens", async () => {
  const { ranks, greedy: expected } = oracleTucker("llama-gqa").interventions.find(({ name }) =>
    name === "half-all-layers"
  )!;
  const model = await folderOf({
    "config.json": `${testdata}oracle/llama-gqa/config.json`,
    "onnx/decoder_model.onnx": `${testdata}oracle_pairs/llama-gqa/onnx/decoder_model.onnx`,
    "onnx/decoder_with_past_model.onnx": `${testdata}oracle/llama-gqa/onnx-decoders/decoder_with_past_model.onnx`,
  });
  await using written = await compressFolder(model, { ranks }, { execution: "factored", cache: "compressed" });
  const { folder, report } = written;
  const cache = { heads: 1, kind: "latent" } as const;
  const [first, other] = [{ ...cache, size: ranks[0] + 8, rotation: 8 }, { ...cache, size: ranks[0] }];
  const value = { ...cache, size: 0 };
  const layers = [{ key: first, value }, { key: other, value }];
  assertEquals(report.layers.map(({ cache }) => cache), [...layers, ...layers]);
  await using start = await TestSession.load({ path: `${folder}/onnx/decoder_model.onnx` });
  await using goOn = await TestSession.load({ path: `${folder}/onnx/decoder_with_past_model.onnx` });
  const [prompt, wanted] = [nestedNumbers(expected!.prompt), nestedNumbers(expected!.new_tokens)];
  assertEquals(await greedy(goOn, { prompt, count: wanted.length, first: start }), wanted);
  await Deno.remove(model, { recursive: true });
});

for (const cache of ["full", "per-head", "compressed"] as const) {
  Deno.test(`an encoder with every form of its decoder, ${cache} cache: token by token PyTorch's logits`, async () => {
    const { ranks, cases } = oracleTucker("t5").interventions.find(({ name }) => name === "half-all-and-cross")!;
    const { outputs } = cases.find(({ name }) => name === "single")!;
    const { input_ids, attention_mask, decoder_input_ids } = caseInputs(oracleReference("t5"), "single");
    await using written = await compressFolder(`${testdata}oracle/t5/onnx-past`, { ranks }, {
      execution: "factored",
      cache,
    });
    assertEquals(written.decomposed, 6);
    const open = (graph: string) => TestSession.load({ path: `${written.folder}/onnx/${graph}.onnx` });
    await using encoder = await open("encoder_model");
    await using first = await open("decoder_model");
    await using later = await open("decoder_with_past_model");
    await using merged = await open("decoder_model_merged");
    const states =
      (await encoder.run({ input_ids: input_ids!, attention_mask: attention_mask! }))["last_hidden_state"]!;
    const tokens = nestedNumbers(decoder_input_ids!);
    const wanted = nestedNumbers(outputs["logits"]!);
    for (const [start, goOn] of [[first, later], [merged, merged]] as const) {
      let past: Record<string, Numbers> = {};
      for (const [i, token] of tokens.entries()) {
        const step = await (i === 0 ? start : goOn).run(
          { input_ids: [[token]], encoder_attention_mask: attention_mask! },
          { encoder_hidden_states: states, ...past },
        );
        const presents = Object.entries(step).filter(([name]) => name.startsWith("present."))
          .map(([name, value]) => [name.replace("present.", "past_key_values."), value] as const)
          // The cached branch gives keys of the encoder out empty: those of the first call stay.
          .filter(([name]) => i === 0 || !name.includes("encoder"));
        past = { ...past, ...Object.fromEntries(presents) };
        const size = step["logits"]!.data.length;
        const expected = wanted.slice(i * size, (i + 1) * size);
        const what = `${start === merged ? "merged" : "separate"}, token ${i}`;
        assertNear(step["logits"]!.data, expected, { atol: 1e-3 * largestValue(wanted), rtol: 0, what });
      }
    }
  });
}

Deno.test("a graph without attention goes along as it is, and the report says so", async () => {
  const embeddings = projection(4);
  const folder = await folderOf({
    "onnx/decoder_model.onnx": `${gpt2}/onnx/decoder_model.onnx`,
    "onnx/embed_tokens.onnx": embeddings,
    "onnx/other.onnx": embeddings,
  });
  await using written = await compressFolder(folder, { ranks: [18, 6, 2] }, { execution: "factored" });
  assertEquals((await loadModel(`${written.folder}/onnx/embed_tokens.onnx`)).proto.graph!.node.length, 1);
  assertEquals([...Deno.readDirSync(`${written.folder}/onnx`)].map(({ name }) => name).sort(), [
    "decoder_model.onnx",
    "embed_tokens.onnx",
  ]);
  assertEquals(written.report.skipped.map(({ graph, operator }) => [graph, operator]), [[
    "embed_tokens.onnx",
    "graph",
  ]]);
  assertStringIncludes(written.report.skipped[0]!.reason, "neither a Softmax nor an attention operator");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("what works on one graph names the several; a fault in one says in which, and nothing is left behind", async () => {
  const error = assertThrows(
    () => singleGraph({ ...folderFacts, graphPaths: ["/m/onnx/encoder_model.onnx", "/m/onnx/decoder_model.onnx"] }),
    TuckerdError,
    "(encoder_model.onnx, decoder_model.onnx)",
  );
  assertEquals(error.kind, "unsupported");
  await using resources = new AsyncDisposableStack();
  const store = resources.use(await FactorStore.open(undefined));
  const graphs = await openGraphs(await openModelFolder(`${testdata}oracle/t5`), { device: "cpu", store }, resources);
  const out = `${resources.use(await temporaryFolder()).path}/out`;
  const refused = await assertRejects(
    () => writeModelFolder(graphs, resolveOptions({ ranks: [8, 4, 2], layers: "3" }), { out, execution: "factored" }),
    TuckerdError,
    "encoder_model.onnx: ",
  );
  assertEquals(refused.kind, "invalid");
  await assertRejects(
    () => writeModelFolder(graphs, resolveOptions({}), { out: `${testdata}oracle/t5/onnx/x.onnx`, execution: "dense" }),
    TuckerdError,
    "2 graphs",
  );
  await assertRejects(() => Deno.stat(out), Deno.errors.NotFound);
});

const folderFacts = {
  path: "/m",
  id: "m",
  graphPath: "/m/onnx/encoder_model.onnx",
  config: {},
  architecture: "unknown",
};

Deno.test("graphs that wouldn't share a cache are refused with its name and both sizes", async () => {
  const ranks = { ranks: [18, 6, 4] as const };
  await using full = await compressFolder(gpt2, ranks, { execution: "factored" });
  await using compressed = await compressFolder(gpt2, ranks, { execution: "factored", cache: "per-head" });
  const sizes = await Promise.all(
    [full, compressed].map(async ({ folder }, i) =>
      cacheSizes(`graph ${i}`, await loadModel(`${folder}/onnx/decoder_with_past_model.onnx`))
    ),
  );
  assertEquals(sizes.map(({ sizes }) => [sizes.size, sizes.get("0.key")]), [[6, "3 × 12"], [6, "3 × 6"]]);
  const text = "graph 0 and graph 1 wouldn't share the cache 0.key: 3 × 12 against 3 × 6";
  const error = assertThrows(() => checkSameCaches(sizes), TuckerdError, text);
  assertEquals(error.kind, "invalid");
  checkSameCaches([sizes[0]!, sizes[0]!]);
});

Deno.test("graphs that would come out with different caches aren't written", async () => {
  const later = await loadModel(`${gpt2}/onnx/decoder_with_past_model.onnx`);
  const graph = later.proto.graph!;
  const packed = graph.initializer.find(({ dims }) => String(dims) === "36,108")!; // a layer whose weights come from outside is left
  const given = withFields(graph, {
    initializer: graph.initializer.filter((tensor) => tensor !== packed),
    input: [...graph.input, tensorInfo(packed.name, DataType.FLOAT, [36, 108])],
  });
  const folder = await folderOf({
    "config.json": `${gpt2}/config.json`,
    "onnx/decoder_model.onnx": `${gpt2}/onnx/decoder_model.onnx`,
    "onnx/decoder_with_past_model.onnx": encodeModel({ ...later, proto: withFields(later.proto, { graph: given }) }),
  });
  await using resources = new AsyncDisposableStack();
  resources.defer(() => Deno.remove(folder, { recursive: true }));
  const store = resources.use(await FactorStore.open(undefined));
  const graphs = await openGraphs(await openModelFolder(folder), { device: "cpu", store }, resources);
  const write = (cache: "full" | "per-head") =>
    writeModelFolder(graphs, resolveOptions({ ranks: [18, 6, 4] }), {
      out: `${folder}/${cache}`,
      execution: "factored",
      cache,
    });
  const text =
    "decoder_model.onnx and decoder_with_past_model.onnx wouldn't share the cache 0.key: 3 × 6 against 3 × 12";
  await assertRejects(() => write("per-head"), TuckerdError, text);
  assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name).sort(), ["config.json", "onnx"]);
  assertEquals((await write("full")).layers.length, 5);
});
