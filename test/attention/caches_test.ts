/**
 * Caches: what a rewritten decoder takes and gives, and that decoding token by token through it equals all tokens at once.
 */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention } from "../../src/attention/mod.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import { nestedNumbers, oracleExports, oracleReference } from "../support/oracle.ts";
import { pastOf } from "../support/pieces.ts";
import { randomBasis, seeded } from "../support/random_tucker.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { projectOnto, type ReferenceTucker, stackWeights } from "../support/tucker_reference.ts";
import { testSeed } from "../support/seed.ts";

/** Every layer at half ranks in random subspaces; stack rank 3 makes grouped heads differ. */
function halves(model: OnnxModel, random: () => number): Map<number, ReferenceTucker> {
  return new Map(
    findAttention(model).blocks.map((block) => {
      const { weights } = extractWeights(model, block);
      const { hiddenSize: d, headSize: h, heads } = weights;
      const [u1, u2, u3] = [d, h, 4].map((n) => randomBasis(n, n === 4 ? 3 : n / 2, random)) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      return [block.layer, projectOnto({ d, h, heads, data: stackWeights(weights) }, { u1, u2, u3 })];
    }),
  );
}

/** Sizes of inputs and outputs of a cache, dynamic ones by name. */
function cacheTypes(model: OnnxModel): Record<string, (number | string)[]> {
  const { input, output } = model.proto.graph!;
  return Object.fromEntries(
    [...input, ...output].filter(({ name }) => /^(past_key_values|present)\.0/.test(name)).map(({ name, type }) => [
      name,
      type!.tensorType!.shape!.dim.map(({ value }) =>
        value.case === "dimValue" ? Number(value.value) : value.value ?? "?"
      ),
    ]),
  );
}

const MODELS = ["gpt2", "bloom", "gptj", "codegen", "llama", "llama-gqa", "falcon-mqa", "gemma2", "qwen3"];
const EXPORTS = MODELS.flatMap(oracleExports).filter(({ file }) => /past\/model|merged/.test(file));

for (const { model: name, file, path } of EXPORTS) {
  for (const cache of ["full", "compressed"] as const) {
    Deno.test(`${name}/${file}: token by token through a ${cache} cache equals all at once`, async () => {
      const seed = testSeed();
      const model = await loadModel(path);
      const { model: rewritten, feeds, sizes } = factored(model, halves(model, seeded(seed)), cache);
      await using session = await TestSession.load(rewritten);
      const { inputs } = oracleReference(name).cases.find((entry) => entry.name === "single")!;
      const tokens = nestedNumbers(inputs["input_ids"]!).slice(0, 6);
      const run = (from: number, to: number, past: Record<string, Numbers>): Promise<Record<string, Numbers>> =>
        session.run(
          {
            input_ids: [tokens.slice(from, to)],
            attention_mask: [tokens.slice(0, to).map(() => 1)],
            position_ids: [tokens.slice(from, to).map((_, i) => from + i)],
          },
          { ...feeds, ...past },
          sizes,
        );
      const whole = (await run(0, tokens.length, {}))["logits"]!;
      const width = whole.shape.at(-1)!;
      let past: Record<string, Numbers> = {};
      for (let i = 0; i < tokens.length; i++) {
        const step = await run(i, i + 1, past);
        past = pastOf(step);
        const expected = Array.from(whole.data).slice(i * width, (i + 1) * width);
        const what = `seed ${seed}, token ${i}`;
        assertNear(step["logits"]!.data, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what });
      }
    });
  }
}

Deno.test("the types of caches say what they hold", async () => {
  const typesOf = async (
    name: string,
    cache: "full" | "compressed" | "latent",
  ): Promise<Record<string, (number | string)[]>> => {
    const { path } = oracleExports(name).find(({ file }) => file === "onnx-past/model.onnx")!;
    const model = await loadModel(path);
    return cacheTypes(factored(model, halves(model, seeded(1)), cache).model);
  };
  const [past, all] = ["past_sequence_length", "past_sequence_length + 1"];
  const dims = (types: Record<string, (number | string)[]>): (number | string)[][] =>
    ["past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value"].map((name) =>
      types[name]!
    );
  assertEquals(dims(await typesOf("gpt2", "full")), [
    ["batch_size", 3, past, 12],
    ["batch_size", 3, past, 12],
    ["batch_size", 3, all, 12],
    ["batch_size", 3, all, 12],
  ]);
  assertEquals(dims(await typesOf("gpt2", "compressed")), [
    ["batch_size", 3, past, "layer0.key.r2"],
    ["batch_size", 3, past, "layer0.value.r2"],
    ["batch_size", 3, all, "layer0.key.r2"],
    ["batch_size", 3, all, "layer0.value.r2"],
  ]);
  // z in the key's place, and nothing but positions in the value's.
  assertEquals(dims(await typesOf("gpt2", "latent")), [
    ["batch_size", 1, past, "layer0.r1"],
    ["batch_size", 1, past, 0],
    ["batch_size", 1, all, "layer0.r1"],
    ["batch_size", 1, all, 0],
  ]);
  // Cosines and sines of 6 angles beside it.
  assertEquals(dims(await typesOf("llama", "latent")), [
    ["batch_size", 1, past, "layer0.r1 + 12"],
    ["batch_size", 1, past, 0],
    ["batch_size", 1, all, "layer0.r1 + 12"],
    ["batch_size", 1, all, 0],
  ]);
  // Six heads, where the file has two groups: rotated keys stay whole.
  assertEquals(dims(await typesOf("llama-gqa", "compressed")), [
    ["batch_size", 6, past, 8],
    ["batch_size", 6, past, "layer0.value.r2"],
    ["batch_size", 6, all, 8],
    ["batch_size", 6, all, "layer0.value.r2"],
  ]);
});
