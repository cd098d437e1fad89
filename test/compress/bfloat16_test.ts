/**
 * Weights in bfloat16. ONNX Runtime's CPU provider runs hardly any operator in it, so the written file is checked by its types, and by
 * its numbers in a copy of it in float32.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention } from "../../src/attention/mod.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { nestedNumbers, oracleExports, oracleReference, oracleTensors, oracleTucker } from "../support/oracle.ts";
import { retyped } from "../support/retyped.ts";
import { TestSession } from "../support/session.ts";
import { stackWeights } from "../support/tucker_reference.ts";

/** The nearest number whose lower 16 bits are zero, even where two are as near: IEEE rounding, bit by bit. */
function rounded(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const [upper, lower] = [view.getUint16(0), view.getUint16(2)];
  const up = lower > 0x8000 || lower === 0x8000 && upper % 2 === 1;
  view.setUint32(0, (upper + (up ? 1 : 0)) * 0x10000);
  return view.getFloat32(0);
}

Deno.test("bfloat16 weights are read, decomposed, and written in bfloat16", async () => {
  const folder = await Deno.makeTempDir();
  const original = await loadModel(oracleExports("bert").find(({ file }) => file === "onnx-latest/model.onnx")!.path);
  await saveModel(retyped(original, DataType.FLOAT, DataType.BFLOAT16), `${folder}/model.onnx`);
  const model = await loadModel(`${folder}/model.onnx`);
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, skipped], [3, []]);
  for (const block of blocks) {
    const expected = Array.from(oracleTensors("bert").get(`layer${block.layer}.W`)!.data, rounded);
    assertEquals(Array.from(stackWeights(extractWeights(model, block).weights)), expected);
  }

  await using opened = await openTestCompressor(`${folder}/model.onnx`);
  const { ranks, layers, cases } = oracleTucker("bert").interventions.find(({ name }) => name === "half-all-layers")!;
  for (const execution of ["factored", "dense"] as const) {
    const out = `${folder}/${execution}`;
    const report = await writeModelFolder(opened.compressor, resolveOptions({ ranks }), { out, execution });
    for (const { layer, relative_error } of layers) {
      // Rounding to 8 bits adds up to 2^-9 to each weight.
      const actual = report.layers[Number(layer)]!.relativeError;
      assertNear([actual], [relative_error], { atol: 4e-3, rtol: 0, what: `layer ${layer}` });
    }
    const written = await loadModel(`${out}/onnx/model.onnx`);
    const types = new Set(written.proto.graph!.initializer.map(({ dataType }) => dataType));
    assert(types.has(DataType.BFLOAT16) && !types.has(DataType.FLOAT), `types ${[...types]}`);
    const copy = retyped(written, DataType.BFLOAT16, DataType.FLOAT);
    await using session = await TestSession.load(copy);
    for (const { name, outputs } of cases) {
      const { inputs } = oracleReference("bert").cases.find((entry) => entry.name === name)!;
      const actual = await session.run(inputs);
      for (const [output, nested] of Object.entries(outputs)) {
        const expected = nestedNumbers(nested);
        const what = `${execution} ${name} ${output}`;
        assertNear(actual[output]!.data, expected, { atol: 0.04 * largestValue(expected), rtol: 0, what });
      }
    }
  }
  await Deno.remove(folder, { recursive: true });
});
