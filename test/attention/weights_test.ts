/** Extracted weights: whose memory they are, and when it is given back. */
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import { extractWeights, findAttention, MATRICES } from "../../src/attention/mod.ts";
import { extractFeedForward } from "../../src/attention/feed_forward/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { oracleExports, oracleFormats } from "../support/oracle.ts";

const SUBJECTS: Readonly<Record<string, string>> = {
  "float32 in the model": oracleExports("bert")[0]!.path,
  "packed in one matrix": oracleExports("gpt2")[0]!.path,
  ...Object.fromEntries(
    ["external-per-tensor", "fp16", "int8-dynamic"].map((name) => {
      const found = oracleFormats().find(({ format }) => format === name);
      if (found === undefined) throw new Error(`there is no model in format ${name}`);
      return [name, found.path];
    }),
  ),
};

for (const [name, path] of Object.entries(SUBJECTS)) {
  Deno.test(`weights, ${name}: forgotten ones are released and read again, disposed ones are not`, async () => {
    const model = await loadModel(path);
    const block = findAttention(model).blocks[1]!;
    const extracted = extractWeights(model, block);
    for (const matrix of MATRICES) {
      const numbers = extracted.weights[matrix];
      const copy = numbers.slice();
      assertEquals(copy.length, block.hiddenSize * block.heads * block.headSize);
      assert(copy.some((value) => value !== 0));
      numbers.fill(NaN); // the arrays are the caller's: the file must not feel it
      extracted.forget();
      assertEquals(numbers.length, 0, `${matrix} was kept`);
      assertEquals(extracted.weights[matrix], copy, matrix);
    }
    const { query } = extracted.weights;
    extracted[Symbol.dispose]();
    assertEquals(query.length, 0);
    assertThrows(() => extracted.weights.query, TypeError, "disposed");
    using again = extractWeights(model, block);
    assertEquals(again.weights.query.length, block.hiddenSize * block.heads * block.headSize);
  });
}

Deno.test("a feed-forward matrix says whether it is a view of the file", async () => {
  const place = { layer: 0, index: 0, matrix: "fc_in" } as const;
  const owned = async (path: string): Promise<boolean> => extractFeedForward(await loadModel(path), place).owned;
  assertEquals(await owned(SUBJECTS["external-per-tensor"]!), true);
  const model = await loadModel(SUBJECTS["float32 in the model"]!);
  const { data, owned: own } = extractFeedForward(model, place);
  if (!own) assertEquals(data.buffer, extractFeedForward(model, place).data.buffer);
});
