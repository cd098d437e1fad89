/** Names of models, variables of the hub's tools, and which files of a repository are meant. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { parseCommandLine, UsageError } from "../../src/config.ts";
import { parseHubModel } from "../../src/config/hub_model.ts";
import { chooseGraphs } from "../../src/config/graph_files.ts";
import { TuckerdError } from "../../src/errors.ts";
import { neededWith } from "../../src/hub/needed.ts";
import { readHubSettings } from "../../src/hub/settings.ts";
import { chooseVariant } from "../../src/hub/variants.ts";

const commit = "0123456789".repeat(4);

Deno.test("names of models, as the contract writes them", () => {
  const main = { repository: "owner/name", revision: "main" };
  const names: [string, ReturnType<typeof parseHubModel>][] = [
    ["hf:owner/name", main],
    ["hf:owner/name@v1.0", { ...main, revision: "v1.0" }],
    ["hf:owner/name@refs/pr/3", { ...main, revision: "refs/pr/3" }],
    [`hf:owner/name@${commit}:model.onnx`, { ...main, revision: commit, file: "model.onnx" }],
    ["hf:owner/name:onnx/model_q4.onnx", { ...main, file: "onnx/model_q4.onnx" }],
    ["hf:owner/name:q4f16", { ...main, precision: "q4f16" }],
    ["hf:owner/name@v1.0:fp32", { ...main, revision: "v1.0", precision: "fp32" }],
    ["hf:Owner-1/na_me.v2", { ...main, repository: "Owner-1/na_me.v2" }],
  ];
  for (const [name, parsed] of names) assertEquals(parseHubModel(name), parsed, name);
});

Deno.test("other spellings are wrong usage, with the form", () => {
  const wrong = [
    "hf:",
    "hf:name",
    "hf://owner/name",
    "hf:owner/name/more",
    "hf:owner/name@",
    "hf:owner/name:",
    "hf:owner/name:model.safetensors",
    "hf:owner/name:q3",
    "hf:owner/name:onnx/q4",
    "hf:owner/name:../model.onnx",
    "hf:owner/name:/model.onnx",
    "hf:owner/name@../main",
    "hf:owner/name@a//b",
    "hf:../name",
    "hf:owner/..",
    "hf:owner/na--me",
    "hf:owner/name.git",
    "hf:owner/na me",
    "hf:owner/name:model.onnx@main",
  ];
  for (const name of wrong) {
    const parse = () => parseCommandLine(["compress", "--model", name, "--out", "x"], { HOME: "/" });
    const error = assertThrows(parse, UsageError, "hf:owner/name[@revision][:file.onnx]", name);
    assertEquals(error.message.startsWith("--model must"), true, error.message);
  }
  assertThrows(() => parseCommandLine(["start"], { HOME: "/", TUCKERD_MODEL: "hf:x" }), UsageError, "TUCKERD_MODEL");
});

Deno.test("variables of the hub's tools", async () => {
  const home = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${home}/token`, "hf_file\n");
    const HOME = "/home/me";
    const read = readHubSettings;
    assertEquals(await read({ HOME }), {
      endpoint: "https://huggingface.co",
      token: undefined,
      cacheFolder: "/home/me/.cache/huggingface/hub",
      offline: false,
    });
    const fromFile = await read({ HOME, HF_HOME: home, HF_ENDPOINT: "http://127.0.0.1:1/", HF_HUB_OFFLINE: "1" });
    assertEquals(fromFile, {
      endpoint: "http://127.0.0.1:1",
      token: { secret: "hf_file", source: `${home}/token` },
      cacheFolder: `${home}/hub`,
      offline: true,
    });
    const both = await read({ HOME, HF_HOME: home, HF_TOKEN: " hf_env ", HF_HUB_CACHE: "~/models" });
    assertEquals(both.token, { secret: "hf_env", source: "HF_TOKEN" });
    assertEquals(both.cacheFolder, "/home/me/models");
    assertEquals((await read({ XDG_CACHE_HOME: "/x" })).cacheFolder, "/x/huggingface/hub");
    assertEquals((await read({ HOME, HF_TOKEN_PATH: `${home}/token` })).token?.source, `${home}/token`);
    for (const HF_ENDPOINT of ["huggingface.co", "ftp://hub", "http://me:secret@hub"]) {
      const error = await assertRejects(() => read({ HOME, HF_ENDPOINT }), UsageError, "HF_ENDPOINT");
      assertEquals(error.message.includes("secret"), false);
    }
    await assertRejects(() => read({ HOME, HF_TOKEN: "hf_a\nhf_b" }), UsageError, "HF_TOKEN");
    await assertRejects(() => read({}), UsageError, "HF_HOME");
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

const model = parseHubModel("hf:owner/name")!;
const named = (...paths: readonly string[]) => paths.map((path) => ({ path, size: 1 }));

Deno.test("the default order of variants", () => {
  const choices: [string, string[]][] = [
    ["onnx/model.onnx", ["model.onnx", "onnx/model_q4.onnx", "onnx/model.onnx", "onnx/model_fp16.onnx"]],
    ["model.onnx", ["model.onnx", "onnx/model_fp16.onnx"]],
    ["onnx/model_fp16.onnx", ["onnx/model_q4.onnx", "onnx/model_quantized.onnx", "onnx/model_fp16.onnx"]],
    ["onnx/model_quantized.onnx", ["onnx/model_q4.onnx", "onnx/model_quantized.onnx", "onnx/model_bnb4.onnx"]],
    ["onnx/model_int8.onnx", ["onnx/model_uint8.onnx", "onnx/model_int8.onnx", "onnx/model_q4f16.onnx"]],
    ["onnx/model_q4f16.onnx", ["onnx/model_q4f16.onnx", "onnx/model_bnb4.onnx", "onnx/model_q2.onnx"]],
    ["onnx/decoder_model_merged.onnx", [
      "onnx/decoder_model.onnx",
      "onnx/decoder_model_merged.onnx",
      "onnx/decoder_with_past_model.onnx",
    ]],
    ["decoder_model_merged_q4.onnx", ["decoder_model_merged_q4.onnx", "decoder_with_past_model_q4.onnx"]],
    ["bert.onnx", ["bert.onnx"]],
    ["onnx/model.onnx", ["onnx/text_model.onnx", "onnx/vision_model.onnx", "onnx/model.onnx"]],
  ];
  for (const [chosen, paths] of choices) assertEquals(chooseVariant(named("config.json", ...paths), model), [chosen]);
});

Deno.test("an encoder and a decoder, or other parts, are taken together, in the most exact precision that has them all", () => {
  const choices: [string[], string[]][] = [
    [["encoder_model", "decoder_model_merged"], [
      "encoder_model",
      "encoder_model_quantized",
      "decoder_model",
      "decoder_with_past_model",
      "decoder_model_merged",
      "decoder_model_merged_quantized",
    ]],
    [["encoder_model", "decoder_model", "decoder_with_past_model"], [
      "decoder_with_past_model",
      "decoder_model",
      "encoder_model",
    ]],
    [["encoder_model_fp16", "decoder_model_merged_fp16"], [
      "encoder_model",
      "encoder_model_fp16",
      "decoder_model_merged_fp16",
      "decoder_model_merged_q4",
    ]],
    [["encoder_model", "decoder_model_merged_q4"], ["encoder_model", "decoder_model_merged_q4"]],
    [["text_model_quantized", "vision_model_quantized"], ["text_model_quantized", "vision_model_quantized"]],
    [["vision_encoder_q4f16", "embed_tokens_q4f16", "decoder_model_merged_q4f16"], [
      "decoder_model_merged_q4f16",
      "embed_tokens_q4f16",
      "vision_encoder_q4f16",
    ]],
  ];
  const onnx = (names: readonly string[]) => names.map((name) => `onnx/${name}.onnx`);
  for (const [chosen, names] of choices) {
    assertEquals(chooseVariant(named("config.json", ...onnx(names)), model), onnx(chosen));
  }
  assertEquals(
    chooseGraphs(onnx(["encoder_model", "decoder_model_merged", "decoder_model"]), { everyDecoder: true }),
    onnx(["encoder_model", "decoder_model_merged", "decoder_model"]),
  );
});

Deno.test("a precision takes all files of it", () => {
  const files = named(
    ...["model", "model_q4", "model_quantized"].map((name) => `onnx/${name}.onnx`),
    ...["encoder_model_q4f16", "decoder_model_merged_q4f16", "decoder_model_q4f16"].map((name) => `onnx/${name}.onnx`),
  );
  assertEquals(chooseVariant(files, { ...model, precision: "q8" }), ["onnx/model_quantized.onnx"]);
  assertEquals(chooseVariant(files, { ...model, precision: "fp32" }), ["onnx/model.onnx"]);
  assertEquals(chooseVariant(files, { ...model, precision: "q4f16" }), [
    "onnx/encoder_model_q4f16.onnx",
    "onnx/decoder_model_merged_q4f16.onnx",
  ]);
  const missing = assertThrows(
    () => chooseVariant(files, { ...model, precision: "bnb4" }),
    TuckerdError,
    "precision bnb4",
  );
  assertEquals(missing.kind, "not-found");
});

Deno.test("unknown names are refused with the variants; a named file is taken", () => {
  const pair = named("onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx");
  assertEquals(chooseVariant(pair, { ...model, file: "onnx/encoder_model.onnx" }), ["onnx/encoder_model.onnx"]);
  const unknown = named("a.onnx", "b.onnx");
  const refused = assertThrows(() => chooseVariant(unknown, model), TuckerdError, "hf:owner/name:FILE: a.onnx, b.onnx");
  assertEquals(refused.kind, "unsupported");
});

Deno.test("configuration and tokenizer come from one folder: the graph's, or the one above", () => {
  const paths = (graph: string, ...all: readonly string[]) =>
    neededWith(graph, named(graph, ...all)).map(({ path }) => path).filter((path) => path !== graph);
  assertEquals(paths("onnx/model.onnx", "config.json", "tokenizer.json", "onnx/config.json"), [
    "config.json",
    "tokenizer.json",
  ]);
  assertEquals(paths("onnx/model.onnx", "config.json", "onnx/config.json", "onnx/tokenizer.json"), [
    "onnx/config.json",
    "onnx/tokenizer.json",
  ]);
  assertEquals(paths("model.onnx", "config.json", "train.json", "onnx/config.json"), ["config.json"]);
  assertEquals(paths("bert/onnx/model.onnx", "config.json", "bert/config.json"), ["bert/config.json"]);
});

Deno.test("external data by the usual names", () => {
  const all = ["model.onnx_data", "model.onnx_data_1", "model.onnx.data", "model.data", "model_q4.onnx_data"];
  assertEquals(neededWith("model.onnx", named(...all)).map(({ path }) => path), all.slice(0, 4));
});
