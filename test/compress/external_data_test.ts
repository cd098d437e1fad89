/** Models with external data: what is served and what is written refers to the data that it uses, and to no more. */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { dirname } from "node:path";
import { resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { TuckerdError } from "../../src/errors.ts";
import { externalLocation, readExternal } from "../../src/onnx/external.ts";
import { externalTensors, loadModel } from "../../src/onnx/model.ts";
import { byteSizeOf } from "../../src/onnx/tensor.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { headsReordered } from "../support/edited_roberta.ts";
import { writeExternal } from "../support/external_data.ts";
import { temporaryFolder } from "../support/folder.ts";
import { caseInputs, nestedNumbers, oracleFormats, oracleReference, oracleTucker } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

Deno.test("a model with external data serves from a file that ONNX Runtime opens, and leaves nothing behind", async () => {
  const { path, model } = oracleFormats().find(({ format }) => format === "external-per-tensor")!;
  const { inputs } = oracleReference(model).cases.find(({ name }) => name === "single")!;
  let file: string;
  {
    await using opened = await openTestCompressor(path);
    const { graph, feeds } = await opened.compressor.compress(resolveOptions({ ranks: [36, 12, 4], layers: "1" }));
    if (!("path" in graph)) throw new TypeError("the graph was handed over as bytes, without its data");
    file = graph.path;
    const data = [...Deno.readDirSync(file.replace(/[^/]+$/, ""))].map(({ name }) => name);
    assert(data.length > 1, "no data beside the graph");
    await using original = await TestSession.load({ path });
    await using session = await TestSession.load({ path: file });
    const [expected, actual] = [await original.run(inputs), await session.run(inputs, feeds)];
    assertNear(actual["logits"]!.data, expected["logits"]!.data, { atol: 1e-4, rtol: 1e-4, what: "full ranks" });
  }
  assertEquals(await Deno.stat(file).then(() => "there", () => "gone"), "gone");
});

/** The model with its data in a folder of its own, which is removed at the end. */
async function withCopy(work: (folder: string) => Promise<void>): Promise<void> {
  const { path } = oracleFormats().find(({ format }) => format === "external-per-tensor")!;
  const folder = await Deno.makeTempDir();
  for await (const { name } of Deno.readDir(dirname(path))) {
    await Deno.copyFile(`${dirname(path)}/${name}`, `${folder}/${name}`);
  }
  await work(folder).finally(() => Deno.remove(folder, { recursive: true }));
}

const half = oracleTucker("gpt2").interventions.find(({ name }) => name === "half-all-layers")!;

async function assertGivesHalf(path: string): Promise<void> {
  await using session = await TestSession.load({ path });
  const { inputs } = oracleReference("gpt2").cases.find(({ name }) => name === "single")!;
  const expected = nestedNumbers(half.cases.find(({ name }) => name === "single")!.outputs["logits"]!);
  const { logits } = await session.run(inputs);
  assertNear(logits!.data, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what: path });
}

Deno.test("a written folder holds the weights that are left, and not those that factors replaced", async () => {
  await withCopy(async (folder) => {
    await using opened = await openTestCompressor(`${folder}/model.onnx`);
    const out = `${folder}/out`;
    await writeModelFolder(opened.compressor, resolveOptions({ ranks: half.ranks }), { out, execution: "factored" });
    await assertGivesHalf(`${out}/onnx/model.onnx`);
    const names = [...Deno.readDirSync(`${out}/onnx`)].map(({ name }) => name);
    assertEquals(names.filter((name) => name.includes(".attn.")), []);
    for (const kept of ["transformer.wte.weight", "transformer.h.2.mlp.c_fc.weight"]) {
      assertEquals(await Deno.readFile(`${out}/onnx/${kept}`), await Deno.readFile(`${folder}/${kept}`), kept);
    }
    const { proto, folder: home } = await loadModel(`${out}/onnx/model.onnx`);
    const inGraph = proto.graph!.initializer.filter(({ rawData }) => rawData.byteLength >= 1024);
    assertEquals(inGraph.map(({ name }) => name), []);
    assert((await Deno.stat(`${home}/model.onnx_data`)).size > 0, "the factors aren't in external data");
  });
});

Deno.test("a file beside the original refers to its data, which nothing touches", async () => {
  await withCopy(async (folder) => {
    await using opened = await openTestCompressor(`${folder}/model.onnx`);
    const before = await listing(folder);
    const write = (out: string) =>
      writeModelFolder(opened.compressor, resolveOptions({ ranks: half.ranks }), { out, execution: "factored" });
    const report = await write(`${folder}/small.onnx`);
    await assertGivesHalf(`${folder}/small.onnx`);
    const after = await listing(folder);
    const added = Object.keys(after).filter((name) => !(name in before)).sort();
    assertEquals(added, ["small.onnx", "small.onnx_data", "small.tuckerd.json"]);
    for (const [name, facts] of Object.entries(before)) assertEquals(after[name], facts, name);
    assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/small.tuckerd.json`)), report);
    const { proto } = await loadModel(`${folder}/small.onnx`);
    const locations = new Set(
      [...externalTensors({ proto, path: "", folder: "" })].map((tensor) => externalLocation(tensor, "").location),
    );
    assert(locations.has("transformer.wte.weight") && !locations.has("transformer.h.0.attn.c_attn.weight"));
    await assertRejects(() => write(`${folder}/small.onnx`), TuckerdError, "is there already");
    await assertRejects(
      () => write(`${folder}/elsewhere/small.onnx`),
      TuckerdError,
      "in the folder of the model's graph",
    );
    assertEquals(await listing(folder), after);
  });
});

async function listing(folder: string): Promise<Record<string, unknown>> {
  const files: Record<string, unknown> = {};
  for await (const { name } of Deno.readDir(folder)) {
    const { size, mtime, ino } = await Deno.stat(`${folder}/${name}`);
    files[name] = [size, mtime, ino];
  }
  return files;
}

for (const name of ["bert/int4-sym", "llama-gqa/fp16"]) {
  Deno.test(`${name} in external data: its half ranks give its reference outputs, and the rest stays as it was`, async () => {
    const format = oracleFormats().find(({ model, format }) => `${model}/${format}` === name)!;
    const folder = await Deno.makeTempDir();
    const model = await loadModel(format.path);
    const location = "weights of 4 or 16 bits.bin";
    const { path, moved } = await writeExternal(model, { folder, location });

    await using opened = await openTestCompressor(path);
    const { ranks, cases } = format.interventions.find(({ name }) => name === "half-all-layers")!;
    const out = `${folder}/out`;
    await writeModelFolder(opened.compressor, resolveOptions({ ranks }), { out, execution: "factored" });
    const written = await loadModel(`${out}/onnx/model.onnx`);
    const left = [...externalTensors(written)].filter((tensor) => externalLocation(tensor, "").location === location);
    assert(left.length > 0 && left.length < moved, `${left.length} of ${moved} tensors are left`);
    const before = new Map(model.proto.graph!.initializer.map((tensor) => [tensor.name, tensor.rawData]));
    for (const tensor of left) {
      const actual = readExternal(externalLocation(tensor, written.folder), byteSizeOf(tensor));
      assertEquals(actual, new Uint8Array(before.get(tensor.name)!), tensor.name);
    }
    await writeModelFolder(opened.compressor, resolveOptions({ ranks }), {
      out: `${folder}/dense`,
      execution: "dense",
    });
    for (const written of [out, `${folder}/dense`]) {
      await using session = await TestSession.load({ path: `${written}/onnx/model.onnx` });
      const { inputs } = format.reference.cases.find(({ name }) => name === "single")!;
      const results = await session.run(inputs);
      for (const [output, nested] of Object.entries(cases.find(({ name }) => name === "single")!.outputs)) {
        const what = `${written}: ${output}`;
        assertNear(results[output]!.data, nestedNumbers(nested), { ...format.reference.tolerance, what });
      }
    }
    await Deno.remove(folder, { recursive: true });
  });
}

Deno.test("whole projections whose heads stand in another order are reconstructed in the file's order", async () => {
  const model = headsReordered();
  const reference = oracleReference("roberta");
  const { ranks, cases } = oracleTucker("roberta").interventions.find(({ name }) => name === "half-all-layers")!;
  await using folder = await temporaryFolder();
  const { path } = await writeExternal(model, { folder: folder.path, location: "weights.bin" });
  await using opened = await openTestCompressor(path);
  for (const execution of ["factored", "dense"] as const) {
    const out = `${folder.path}/${execution}`;
    await writeModelFolder(opened.compressor, resolveOptions({ ranks }), { out, execution });
    await using session = await TestSession.load({ path: `${out}/onnx/model.onnx` });
    for (const { name, outputs } of cases) {
      const results = await session.run(caseInputs(reference, name));
      for (const [output, nested] of Object.entries(outputs)) {
        const expected = nestedNumbers(nested);
        const what = `${execution} ${name} ${output}`;
        assertNear(results[output]!.data, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what });
      }
    }
  }
});
