/** Models with external data: the graph that serves is a file with links to the data beside it, and goes with the store. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { resolveOptions } from "../../src/compress/options.ts";
import { assertNear } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { oracleFormats, oracleReference } from "../support/oracle.ts";
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
