/** Attention and feed-forward rewrites together: the factored file computes what the dense one does, in several architectures and formats. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { type CompressionRequest, resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { largestDifference, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { runInPieces } from "../support/pieces.ts";
import { TestSession } from "../support/session.ts";

const requests: readonly CompressionRequest[] = [
  { mode: "laser", laser: { rate: 6, matrices: ["all"] } },
  { mode: "4d-tucker-laser", compressionRatio: 2.5, layers: "0" },
  { mode: "3d-tucker", compressionRatio: 2, matrices: ["query", "value"] },
];
/** Shared weights, norms between projection and rotation, fused operators, external data, 4-bit weights. */
const subjects = [
  ...["albert", "qwen3"].map((model) => ({ ...oracleExports(model)[0]!, reference: oracleReference(model) })),
  ...oracleFormats().filter(({ format }) => ["fused", "external-per-tensor", "int4-asym"].includes(format)),
];

for (const { model, file, path, reference } of subjects) {
  Deno.test(`${model}/${file}: laser, 4d-tucker-laser and 3d-tucker run factored as dense`, async () => {
    await using opened = await openTestCompressor(path);
    const out = await Deno.makeTempDir();
    const { inputs } = reference.cases.find(({ name }) => name === "single")!;
    for (const [i, request] of requests.entries()) {
      const outputs = [];
      for (const execution of ["factored", "dense"] as const) {
        const folder = `${out}/${i}-${execution}`;
        await writeModelFolder(opened.compressor, resolveOptions(request), { out: folder, execution });
        await using session = await TestSession.load({ path: `${folder}/onnx/model.onnx` });
        outputs.push(await session.run(inputs));
      }
      const [factored, dense] = outputs;
      for (const [name, { data }] of Object.entries(dense!).filter(([name]) => !name.startsWith("present."))) {
        const difference = largestDifference(factored![name]!.data, data);
        assert(difference <= 2e-5 * largestValue(data), `${request.mode}, ${name}: off by ${difference}`);
      }
    }
    await Deno.remove(out, { recursive: true });
  });
}

for (
  const { ranks, output } of [
    // 4 heads of 3 numbers: 12·48 numbers as one matrix, and 12·24 + 24·48 as two.
    { ranks: [24, 3, 4], output: ["output.bias", "output.dense"] },
    // 48·48 as one, 48·8 + 8·48 as two.
    { ranks: [8, 12, 4], output: ["output.a", "output.bias", "up"] },
  ] as const
) {
  Deno.test(`bert at ${ranks}: a written output takes fewest numbers, and computes what dense weights do`, async () => {
    await using opened = await openTestCompressor(oracleExports("bert")[0]!.path);
    const out = await Deno.makeTempDir();
    const { inputs } = oracleReference("bert").cases.find(({ name }) => name === "single")!;
    const results = [];
    for (const execution of ["factored", "dense"] as const) {
      await writeModelFolder(opened.compressor, resolveOptions({ ranks }), { out: `${out}/${execution}`, execution });
      await using session = await TestSession.load({ path: `${out}/${execution}/onnx/model.onnx` });
      results.push(await session.run(inputs));
    }
    const { proto } = await loadModel(`${out}/factored/onnx/model.onnx`);
    const names = proto.graph!.initializer.map(({ name }) => name).filter((name) => name.startsWith("tuckerd.layer1."));
    const roles = names.map((name) => name.slice("tuckerd.layer1.".length)).sort();
    assertEquals(roles, ["down", ...output, "packed.b", "packed.bias"].sort());
    const [factored, dense] = results;
    for (const [name, { data }] of Object.entries(dense!)) {
      const difference = largestDifference(factored![name]!.data, data);
      assert(difference <= 2e-5 * largestValue(data), `${name}: off by ${difference}`);
    }
    await Deno.remove(out, { recursive: true });
  });
}

Deno.test("gpt-oss, whose softmax has a sink: values that carry their bias run as dense weights do, and are cached with it", async () => {
  const [exported] = oracleExports("gpt-oss");
  await using opened = await openTestCompressor(exported!.path);
  const out = await Deno.makeTempDir();
  const { inputs } = oracleReference("gpt-oss").cases.find(({ name }) => name === "single")!;
  const cases: readonly [CompressionRequest, string][] = [
    [{ ranks: [16, 4, 4] }, "packed.bias"],
    // The subspace of the values alone needn't hold their bias.
    [{ mode: "3d-tucker", ranks: [16, 3, 4], matrices: ["value", "output"] }, "value.bias"],
  ];
  for (const [i, [request, role]] of cases.entries()) {
    const results = [];
    for (const execution of ["factored", "dense"] as const) {
      const folder = `${out}/${i}-${execution}`;
      const cache = execution === "factored" ? "per-head" : "full";
      await writeModelFolder(opened.compressor, resolveOptions(request), { out: folder, execution, cache });
      const path = `${folder}/onnx/model.onnx`;
      const names = (await loadModel(path)).proto.graph!.initializer.map(({ name }) => name);
      assertEquals(names.includes(`tuckerd.layer0.${role}`), execution === "factored");
      await using session = await TestSession.load({ path });
      const pieces = { pieces: [4, ...new Array<number>(7).fill(1)] };
      results.push(
        execution === "factored"
          ? (await runInPieces(session, inputs, pieces)).logits
          : (await session.run(inputs))["logits"]!,
      );
    }
    const [factored, dense] = results;
    const difference = largestDifference(factored!.data, dense!.data);
    assert(difference <= 2e-5 * largestValue(dense!.data), `${JSON.stringify(request)}: off by ${difference}`);
  }
  await Deno.remove(out, { recursive: true });
});
