import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { createExtractive, type ExtractiveOptions } from "../../src/qa/extractive.ts";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";
import type { Question } from "../../src/qa/types.ts";
import type { HostTensor, TensorInfo } from "../../src/runtime/types.ts";
import { bertQaFolder } from "../support/bert_qa.ts";

const tokenizer = await loadTokenizer(bertQaFolder);

function takes(...names: string[]): TensorInfo[] {
  return names.map((name) => ({ name, type: "int64", shape: ["batch", "tokens"] }));
}

/** Logits that prefer the first token of the context; they remember what they were given. */
function fakeModel(): { given: Record<string, HostTensor>[]; run: ExtractiveOptions["run"] } {
  const given: Record<string, HostTensor>[] = [];
  return {
    given,
    run: (inputs) => {
      given.push(inputs);
      const { shape } = Object.values(inputs)[0]!;
      const data = new Float32Array(shape[0]! * shape[1]!);
      const logits: HostTensor = { type: "float32", shape, data };
      return Promise.resolve({ start_logits: logits, end_logits: logits });
    },
  };
}

const config = { model_type: "bert", max_position_embeddings: 64 };

function extractiveWith(options: Partial<ExtractiveOptions>): ReturnType<typeof createExtractive> {
  return createExtractive({ tokenizer, config, inputs: takes("input_ids"), run: fakeModel().run, ...options });
}

const question = "Where is it?", context = "It is in Paris.";

Deno.test("limits: what can't be asked is invalid and names field, rule and value", async () => {
  const wrong: readonly [Partial<Question>, string, string][] = [
    [{ question: "" }, "question", "at least one character"],
    [{ context: "" }, "context", "at least one character"],
    [{ question: "\ud800" }, "question", "lone surrogates"],
    [{ context: "a\udc00b" }, "context", "lone surrogates"],
    [{ parameters: { top_k: 0 } }, "top_k", "at least 1, got 0"],
    [{ parameters: { top_k: 1.5 } }, "top_k", "at least 1, got 1.5"],
    [{ parameters: { top_k: NaN } }, "top_k", "got NaN"],
    [{ parameters: { max_answer_len: 0 } }, "max_answer_len", "got 0"],
    [{ parameters: { max_question_len: -3 } }, "max_question_len", "got -3"],
    [{ parameters: { max_seq_len: 65 } }, "max_seq_len", "from 1 to 64 (the model's longest input), got 65"],
    [{ parameters: { doc_stride: -1 } }, "doc_stride", "got -1"],
    [{ parameters: { doc_stride: 41, max_seq_len: 40 } }, "doc_stride", "from 0 to 40 (max_seq_len), got 41"],
    [{ context: "a ".repeat(30_000), parameters: { doc_stride: 50 } }, "context", "1024 are allowed"],
  ];
  for (const [part, field, text] of wrong) {
    const error = await assertRejects(
      () => extractiveWith({}).answer({ question, context, ...part }),
      TuckerdError,
      text,
    );
    assertEquals([error.kind, error.fields["field"]], ["invalid", field], error.message);
  }
});

Deno.test("limits: the longest input is what tokenizer and position table both allow", () => {
  assertEquals(extractiveWith({}).maxInputTokens, 64);
  assertEquals(extractiveWith({ config: { model_type: "bert", max_position_embeddings: 50 } }).maxInputTokens, 50);
  assertEquals(extractiveWith({ config: { model_type: "bert", max_position_embeddings: 512 } }).maxInputTokens, 64);
  // RoBERTa's positions begin after the padding id.
  const roberta = { model_type: "roberta", max_position_embeddings: 40, pad_token_id: 1 };
  assertEquals(extractiveWith({ config: roberta }).maxInputTokens, 38);
});

Deno.test("limits: inputs are those that the model asks for, of the type it asks for", async () => {
  const model = fakeModel();
  const inputs: TensorInfo[] = [
    { name: "position_ids", type: "int32", shape: ["batch", "tokens"] },
    ...takes("input_ids", "attention_mask"),
  ];
  await extractiveWith({ run: model.run, inputs }).answer({ question, context });
  const [given] = model.given;
  assertEquals(Object.keys(given!), ["position_ids", "input_ids", "attention_mask"]);
  const tokens = given!["input_ids"]!.shape[1]!;
  assertEquals(given!["position_ids"]!.data, Int32Array.from({ length: tokens }, (_, index) => index));
  assertEquals(given!["attention_mask"]!.data, new BigInt64Array(tokens).fill(1n));
});

Deno.test("limits: windows are run in batches, short ones padded and masked", async () => {
  const model = fakeModel();
  const extractive = extractiveWith({ run: model.run, inputs: takes("input_ids", "attention_mask", "token_type_ids") });
  await extractive.answer({ question, context: "the tower ".repeat(200), parameters: { doc_stride: 20, top_k: 3 } });
  const rows = model.given.map(({ input_ids }) => input_ids!.shape[0]!);
  const windows = tokenizer.encodePair(question, "the tower ".repeat(200), { maxLength: 64, stride: 20 });
  assertEquals(rows.reduce((a, b) => a + b), windows.length);
  assert(rows.every((count) => count <= 8) && rows.length > 1);
  const last = model.given.at(-1)!, width = last["input_ids"]!.shape[1]!, tokens = windows.at(-1)!.ids.length;
  assert(tokens < width, "the last window must be shorter for this test to tell");
  const lastRow = (name: string): number[] => Array.from(last[name]!.data.slice(-width), Number);
  assertEquals(lastRow("attention_mask"), Array.from({ length: width }, (_, index) => index < tokens ? 1 : 0));
  assertEquals(lastRow("input_ids"), [...windows.at(-1)!.ids, ...Array(width - tokens).fill(tokenizer.paddingId)]);
});

Deno.test("limits: the score of no answer is the smallest of all windows", async () => {
  const long = "the tower ".repeat(40);
  const windows = tokenizer.encodePair(question, long, { maxLength: 64, stride: 32 });
  // With equal logits a window of n context tokens and [CLS] gives "no answer" 1/(n+1)².
  const scores = windows.map(({ sequences }) => (sequences.filter((sequence) => sequence === 1).length + 1) ** -2);
  assert(Math.min(...scores) < scores.at(-1)!, "the last window must be shorter for this test to tell");
  const parameters = { handle_impossible_answer: true, top_k: 500 };
  const answers = await extractiveWith({}).answer({ question, context: long, parameters });
  const none = answers.filter(({ answer, score }) => answer === "" && score > 0);
  assertEquals(none.length, 1);
  assert(Math.abs(none[0]!.score - Math.min(...scores)) <= 1e-9, `${none[0]!.score} of ${scores}`);
});

Deno.test("limits: a model that asks or gives what question answering doesn't know is refused", async () => {
  await assertRejects(
    () => extractiveWith({ inputs: takes("input_ids", "pixel_values") }).answer({ question, context }),
    TuckerdError,
    'input "pixel_values"',
  );
  const noLogits: ExtractiveOptions["run"] = () =>
    Promise.resolve({ logits: { type: "float32", shape: [1, 2, 3], data: new Float32Array(6) } });
  const error = await assertRejects(
    () => extractiveWith({ run: noLogits }).answer({ question, context }),
    TuckerdError,
    "the model gives logits [1, 2, 3]",
  );
  assertEquals(error.kind, "bad-model");
  assertThrows(
    () => extractiveWith({ tokenizer: { ...tokenizer, paddingSide: "left" } }),
    TuckerdError,
    "pads on the left",
  );
});

Deno.test("limits: float16 logits are read as numbers", async () => {
  // Start at the first token of "Paris", end at the last token before the full stop.
  const [window] = tokenizer.encodePair(question, context, { maxLength: 64, stride: 32 });
  const [first, last] = [window!.starts.lastIndexOf(9), window!.ends.lastIndexOf(14)];
  const peak = (token: number): HostTensor => {
    const data = new Uint16Array(window!.ids.length).fill(0xC900); // -10
    data[token] = 0x4900; // 10
    return { type: "float16", shape: [1, data.length], data };
  };
  const run: ExtractiveOptions["run"] = () => Promise.resolve({ start_logits: peak(first), end_logits: peak(last) });
  const [answer] = await extractiveWith({ run }).answer({ question, context });
  assertEquals(answer!.answer, "Paris");
  assert(answer!.score > 0.99);
});
