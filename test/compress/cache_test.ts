/** `compress --cache compressed`: a decoder that keeps r2 numbers per head, said in the report and true of the file. */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { type CompressionRequest, resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { TuckerdError } from "../../src/errors.ts";
import { assertNear } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { oracleExports, oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

function decoder(model: string): string {
  return oracleExports(model).find(({ file }) => file === "onnx-past/model.onnx")!.path;
}

Deno.test("the cache holds r2 numbers per head, and the outputs are those with a full one", async () => {
  // 3 layers of 3 heads of 12: 2·36 numbers a token and layer; at r2 = 4 a third of that. RoPE keeps llama's keys whole.
  const cases = [
    { model: "gpt2", before: 4 * 3 * 72, after: 4 * 3 * 24, ranks: [24, 4, 3] as const },
    { model: "llama", before: 4 * 2 * 96, after: 4 * 2 * (48 + 16), ranks: [24, 4, 3] as const },
  ];
  for (const { model, before, after, ranks } of cases) {
    await using opened = await openTestCompressor(decoder(model));
    const out = await Deno.makeTempDir();
    const outputs = [];
    for (const cache of ["full", "compressed"] as const) {
      const options = { out: `${out}/${cache}`, execution: "factored", cache } as const;
      const { totals } = await writeModelFolder(opened.compressor, resolveOptions({ ranks }), options);
      assertEquals(totals.kvBytesPerToken, { before, after: cache === "full" ? before : after }, `${model} ${cache}`);
      await using session = await TestSession.load({ path: `${out}/${cache}/onnx/model.onnx` });
      const { inputs } = oracleReference(model).cases.find(({ name }) => name === "single")!;
      const result = await session.run(inputs);
      outputs.push(result["logits"]!.data);
      // What the model hands to the next call is as large as the report says.
      const tokens = (inputs["input_ids"] as readonly (readonly number[])[])[0]!.length;
      const cached = Object.entries(result).filter(([name]) => name.startsWith("present."))
        .reduce((sum, [, { data }]) => sum + data.length, 0);
      assertEquals(4 * cached / tokens, totals.kvBytesPerToken.after, `${model} ${cache}`);
    }
    assertNear(outputs[1]!, outputs[0]!, { atol: 1e-4, rtol: 1e-4, what: model });
    await Deno.remove(out, { recursive: true });
  }
});

Deno.test("stack ranks below 4 make grouped keys and values one per head, and the report says so", async () => {
  await using opened = await openTestCompressor(decoder("llama-gqa"));
  const full = 4 * 2 * 2 * 2 * 8; // 2 layers, keys and values, 2 groups of 8
  for (const [r3, factor] of [[4, 1], [3, 3]] as const) {
    const { report } = await opened.compressor.compress(resolveOptions({ ranks: [24, 4, r3] }));
    assertEquals(report.totals.kvBytesPerToken, { before: full, after: factor * full }, `r3 ${r3}`);
  }
});

Deno.test("a compressed cache that can't be, or that saves nothing, is refused", async () => {
  const refused: [string, CompressionRequest, "factored" | "dense", string][] = [
    [oracleExports("bert")[0]!.path, { ranks: [16, 4, 4] }, "factored", "no key-value cache"],
    [decoder("gpt2"), { ranks: [16, 4, 4] }, "dense", "--execution dense"],
    [decoder("gpt2"), { mode: "laser", laser: { rate: 6 } }, "factored", "864 bytes"],
  ];
  for (const [path, request, execution, text] of refused) {
    await using opened = await openTestCompressor(path);
    const out = `${await Deno.makeTempDir()}/out`;
    const write = () =>
      writeModelFolder(opened.compressor, resolveOptions(request), { out, execution, cache: "compressed" });
    await assertRejects(write, TuckerdError, text);
    assert(await Deno.stat(out).then(() => false, () => true), "something was written");
  }
});
