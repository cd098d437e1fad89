import { assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { readModelConfig } from "../../src/qa/model_config.ts";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";

/** A minimal tokenizer.json: letters a to c and their continuations. */
const minimal = {
  normalizer: { type: "BertNormalizer", lowercase: true },
  pre_tokenizer: { type: "BertPreTokenizer" },
  model: { type: "WordPiece", unk_token: "?", vocab: { "?": 0, a: 1, "##a": 2, b: 3, A: 4, "##é": 5, "##e": 6 } },
};

async function inFolder(files: Record<string, unknown>, action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, typeof content === "string" ? content : JSON.stringify(content));
    }
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("tokenizer files: what can't be read is one clear error", async () => {
  const wrong: readonly [Record<string, unknown>, string, string][] = [
    [{}, "not-found", "tokenizer.json is missing"],
    [{ "tokenizer.json": "{ not json" }, "bad-model", "isn't JSON"],
    [{ "tokenizer.json": "[]" }, "bad-model", "isn't what tuckerd reads"],
    [{ "tokenizer.json": { ...minimal, model: { ...minimal.model, type: "Lookup" } } }, "bad-model", "model.type"],
    [{ "tokenizer.json": { ...minimal, normalizer: { type: "Rot13" } } }, "bad-model", "normalizer.type"],
    [{ "tokenizer.json": { ...minimal, model: { ...minimal.model, unk_token: "<unk>" } } }, "bad-model", "<unk>"],
    [{ "tokenizer.json": minimal, "tokenizer_config.json": "oops" }, "bad-model", "tokenizer_config.json isn't JSON"],
    [
      { "tokenizer.json": { ...minimal, normalizer: { type: "Precompiled", precompiled_charsmap: "////fw==" } } },
      "bad-model",
      "precompiled_charsmap",
    ],
  ];
  for (const [files, kind, text] of wrong) {
    await inFolder(files, async (folder) => {
      const error = await assertRejects(() => loadTokenizer(folder), TuckerdError, text);
      assertEquals(error.kind, kind, error.message);
    });
  }
});

Deno.test("tokenizer files: tokenizer_config.json counts before tokenizer.json for case and accents", async () => {
  const ids = async (config: Record<string, unknown>, text: string): Promise<readonly number[]> => {
    let result: readonly number[] = [];
    await inFolder({ "tokenizer.json": minimal, "tokenizer_config.json": config }, async (folder) => {
      result = (await loadTokenizer(folder)).encode(text).ids;
    });
    return result;
  };
  assertEquals(await ids({}, "Aa aé"), [1, 2, 1, 6]);
  assertEquals(await ids({ do_lower_case: false }, "Aa aé"), [4, 2, 1, 5]);
  assertEquals(await ids({ strip_accents: false }, "Aa aé"), [1, 2, 1, 5]);
});

Deno.test("tokenizer files: special tokens and lengths come from either configuration file", async () => {
  const tokenizer = { ...minimal, added_tokens: [{ id: 7, content: "[CLS]" }, { id: 8, content: "[PAD]" }] };
  const files = {
    "tokenizer.json": tokenizer,
    "tokenizer_config.json": { cls_token: { content: "[CLS]" }, model_max_length: 128 },
    "special_tokens_map.json": { pad_token: "[PAD]" },
  };
  await inFolder(files, async (folder) => {
    const { classificationId, paddingId, modelMaxLength, paddingSide } = await loadTokenizer(folder);
    assertEquals([classificationId, paddingId, modelMaxLength, paddingSide], [7, 8, 128, "right"]);
  });
});

Deno.test("tokenizer files: a text with lone surrogates is no text", async () => {
  await inFolder({ "tokenizer.json": minimal }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    assertThrows(() => tokenizer.encode("a\ud800b"), RangeError, "lone surrogates");
  });
});

Deno.test("tokenizer files: words like Object's own fields are plain words", async () => {
  await inFolder({ "tokenizer.json": minimal }, async (folder) => {
    assertEquals((await loadTokenizer(folder)).encode("constructor toString __proto__").ids, [0, 0, 0, 0, 0, 0, 0]);
  });
});

Deno.test("model config: missing or broken is one clear error", async () => {
  await inFolder({}, async (folder) => {
    assertEquals((await assertRejects(() => readModelConfig(folder), TuckerdError, "config.json")).kind, "not-found");
  });
  await inFolder({ "config.json": { max_position_embeddings: "many" } }, async (folder) => {
    const error = await assertRejects(() => readModelConfig(folder), TuckerdError, "max_position_embeddings");
    assertEquals(error.kind, "bad-model");
  });
});
