/** T5: heads wider than the stream, relative positions, no scale; encoder, decoder and cross attention in one call. */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import {
  caseInputs,
  type Nested,
  nestedNumbers,
  oracleExports,
  oracleReference,
  oracleTensors,
  oracleTucker,
} from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";
import { factorsOf, stackWeights, unstackWeights } from "../support/tucker_reference.ts";

const reference = oracleReference("t5");
const tucker = oracleTucker("t5");
const tensors = oracleTensors("t5");
const SIZES = { d: 24, h: 8, heads: 4 };

/** Names of the oracle for the blocks of a file, in execution order. */
function sitesOf(file: string): string[] {
  if (file.includes("encoder_model")) return ["encoder.0", "encoder.1"];
  return [0, 1].flatMap((l) => [`decoder.${l}`, `cross.${l}`]);
}

for (const { file, path } of oracleExports("t5")) {
  const sites = sitesOf(file);

  Deno.test(`t5/${file}: self attention and cross attention are found`, async () => {
    const model = await loadModel(path);
    const { blocks, skipped } = findAttention(model);
    assertEquals(
      blocks.map(({ hiddenSize, headSize, heads }) => [hiddenSize, headSize, heads]),
      sites.map(() => [24, 8, 4]),
    );
    for (const block of blocks) {
      const { weights, biases } = extractWeights(model, block);
      const original = tensors.get(`layer${sites[block.layer]}.W`)!.data;
      assertEquals(largestDifference(stackWeights(weights), original), 0);
      assertEquals(biases, {});
    }
    assertEquals(skipped, []);
  });

  for (const { name, ranks, layers, cases } of tucker.interventions) {
    const touched = layers.map(({ layer }) => String(layer)).filter((site) => sites.includes(site));
    const whole = layers.every(({ layer }) => sites.includes(String(layer)) || String(layer).startsWith("encoder"));
    if (touched.length === 0 || !whole || file.includes("with_past")) continue;

    Deno.test(`t5/${file}: ${name} gives PyTorch's outputs, factored and dense`, async () => {
      const model = await loadModel(path);
      const data = (site: string): Float32Array =>
        tensors.get(name === "full" ? `layer${site}.W` : `half.layer${site}.W_hat`)!.data;
      const numbers = touched.map((site) => [sites.indexOf(site), data(site)] as const);
      const { model: rewritten, feeds } = factored(
        model,
        new Map(numbers.map(([layer, tensor]) => [layer, factorsOf({ ...SIZES, data: tensor }, ranks)])),
      );
      const dense = rewriteDense(
        model,
        new Map(numbers.map(([layer, tensor]) => [layer, unstackWeights(tensor, SIZES)])),
      );
      await using session = await TestSession.load(rewritten);
      await using denseSession = await TestSession.load(dense);
      for (const { name: caseName, outputs } of cases) {
        const expected = nestedNumbers(
          outputs[file.includes("encoder_model") ? "encoder_last_hidden_state" : "logits"]!,
        );
        const inputs = fileInputs(file, caseInputs(reference, caseName), outputs);
        for (const results of [await session.run(inputs, feeds), await denseSession.run(inputs)]) {
          const { data: actual } = (results["logits"] ?? results["last_hidden_state"])!;
          const what = `${name} ${caseName}`;
          assertNear(actual, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what });
        }
      }
    });
  }
}

/** What a file takes: the decoder gets the hidden states of the (already changed) encoder. */
function fileInputs(
  file: string,
  { input_ids, attention_mask, decoder_input_ids }: Readonly<Record<string, Nested>>,
  outputs: Readonly<Record<string, Nested>>,
): Record<string, Nested> {
  if (file.includes("encoder_model")) return { input_ids: input_ids!, attention_mask: attention_mask! };
  return {
    input_ids: decoder_input_ids!,
    encoder_attention_mask: attention_mask!,
    encoder_hidden_states: outputs["encoder_last_hidden_state"]!,
  };
}
