/**
 * Properties of offsets on random Unicode text, judged by JavaScript's own string functions.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { createExtractive, type ExtractiveOptions } from "../../src/qa/extractive.ts";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";
import type { Encoding } from "../../src/qa/encoding.ts";
import type { HostTensor } from "../../src/runtime/types.ts";
import { bertQaFolder } from "../support/bert_qa.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";

const folder = new URL("../testdata/tokenizers/", import.meta.url).pathname;
const texts = 400;

const alphabets = [
  [..."abcdefghijklmnopqrstuvwxyz"],
  [..."THEQUICKBROWNFOX0123456789"],
  [..."      .,;:!?'\"()[]{}-_/@#$%&*+=~`|\t\n\r"],
  [..."àéîöûñçøåßœæłđþÀÉÎÖÛÑÇØÅŒİıŁẞǆ"],
  [
    "\u0301",
    "\u0308",
    "\u0323",
    "\u0302",
    "\u0327",
    "\u200d",
    "\ufe0f",
    "\u200b",
    "\u00ad",
    "\u00a0",
    "\u3000",
    "\u0085",
  ],
  [..."東京日本中国の首都です。「」𠀀𪚥", ..."서울한국가각", ..."ΑΒΓΣσςαήώ", ..."МоскваЙй", ..."القاهرة", ..."हिन्दी"],
  [..."😀👩🇫🇷🏽❤½²™ﬁＡ１…–“”€£¿°"],
];

function randomText(random: Random): string {
  const length = integer(random, 1, 40);
  return Array.from({ length }, () => {
    const alphabet = alphabets[integer(random, 0, alphabets.length - 1)]!;
    return alphabet[integer(random, 0, alphabet.length - 1)]!;
  }).join("");
}

/** Holds for every tokenizer: offsets lie in the text, in order, and words count up. */
function assertOrdered(text: string, { starts, ends, words }: Encoding): void {
  const length = [...text].length;
  starts.forEach((start, token) => {
    const shown = `token ${token} of ${JSON.stringify(text)}: ${start} to ${ends[token]}`;
    assert(0 <= start && start <= ends[token]! && ends[token]! <= length, shown);
    assert(token === 0 || words[token]! >= words[token - 1]!, shown);
  });
}

/** What BERT's normaliser makes of a slice, written with JavaScript's functions; final sigmas are made plain ones. */
function bertForm(slice: string): string {
  return slice.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase().normalize("NFD").replace(/\p{Mn}/gu, "")
    .replace(/[\p{Cc}\p{Cf}\uFFFD]/gu, "").replaceAll("ς", "σ");
}

for (const source of [bertQaFolder, `${folder}bert-uncased`]) {
  Deno.test(`offsets: WordPiece tokens are the normalised slices of the text (${source.split("/").at(-2)})`, async () => {
    const random = seededRandom("WordPiece offsets");
    const tokenizer = await loadTokenizer(source);
    for (let round = 0; round < texts; round++) {
      const text = randomText(random), characters = [...text];
      const encoding = tokenizer.encode(text);
      assertOrdered(text, encoding);
      const { tokens, starts, ends } = encoding;
      tokens.forEach((token, index) => {
        if (token === "[UNK]") return;
        const start = starts[index]!, end = ends[index]!;
        const slice = bertForm(characters.slice(start, end).join(""));
        const piece = token.replace(/^##/, "").replaceAll("ς", "σ");
        // A character that decomposes, such as a Hangul syllable, may be shared by neighbouring tokens.
        const shared = index > 0 && ends[index - 1]! > start || index + 1 < tokens.length && starts[index + 1]! < end;
        const fits = shared ? slice.includes(piece) : slice === piece;
        assert(
          fits,
          `${JSON.stringify(text)}: token ${token} at ${start} to ${end}, which is ${JSON.stringify(slice)}`,
        );
      });
    }
  });
}

Deno.test("offsets: byte-level tokens are the bytes of their slices, and leave nothing out", async () => {
  const random = seededRandom("byte-level offsets");
  const tokenizer = await loadTokenizer(`${folder}gpt-untrimmed`);
  for (let round = 0; round < texts; round++) {
    const text = randomText(random), characters = [...text];
    const encoding = tokenizer.encode(text);
    assertOrdered(text, encoding);
    const bytes = encoding.tokens.reduce((sum, token) => sum + [...token].length, 0);
    assertEquals(bytes, new TextEncoder().encode(text).length, JSON.stringify(text));
    encoding.tokens.forEach((token, index) => {
      const slice = characters.slice(encoding.starts[index], encoding.ends[index]).join("");
      assert(new TextEncoder().encode(slice).length >= [...token].length, `${JSON.stringify(text)}: ${token}`);
      if (/^[a-zA-Z0-9]+$/.test(token)) assertEquals(slice, token, JSON.stringify(text));
    });
    assertEquals([encoding.starts[0], encoding.ends.at(-1)], [0, characters.length]);
  }
});

Deno.test("offsets: answers slice the context in code points and in UTF-16, whatever the model says", async () => {
  const random = seededRandom("answer offsets");
  const tokenizer = await loadTokenizer(bertQaFolder);
  const logits = ({ shape }: HostTensor): HostTensor => ({
    type: "float32",
    shape,
    data: Float32Array.from({ length: shape[0]! * shape[1]! }, () => random() * 10),
  });
  for (let round = 0; round < texts; round++) {
    const context = `a${randomText(random)}${randomText(random)}`, question = "where?";
    const recorded: Record<string, HostTensor>[] = [];
    const run: ExtractiveOptions["run"] = ({ input_ids }) => {
      recorded.push({ start_logits: logits(input_ids!), end_logits: logits(input_ids!) });
      return Promise.resolve(recorded.at(-1)!);
    };
    const extractive = (runs: ExtractiveOptions["run"]): ReturnType<typeof createExtractive> =>
      createExtractive({
        tokenizer,
        config: { model_type: "bert", max_position_embeddings: 64 },
        inputs: [{ name: "input_ids", type: "int64", shape: ["batch", "tokens"] }],
        run: runs,
      });
    const parameters = { top_k: 3, align_to_words: random() < 0.5 };
    const inCodePoints = await extractive(run).answer({ question, context, parameters });
    const inUtf16 = await extractive(() => Promise.resolve(recorded.shift()!))
      .answer({ question, context, parameters, offsets: "utf16" });
    inCodePoints.forEach(({ answer, start, end }, index) => {
      assertEquals([...context].slice(start, end).join(""), answer, JSON.stringify(context));
      const other = inUtf16[index]!;
      assertEquals(context.slice(other.start, other.end), answer, JSON.stringify(context));
    });
  }
});
