/**
 * Tokenizers of the Hugging Face layout with exact character offsets. @huggingface/tokenizers cuts words into tokens; the
 * rest (normalisation, words, added tokens, templates) is done here with the origin of every character kept, after the Rust
 * tokenizers, whose ids and offsets this gives.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { createAddedTokenSplitter } from "./added_tokens.ts";
import { AlignedText } from "./aligned_text.ts";
import { type Encoding, sliceEncoding, windowRanges } from "./encoding.ts";
import { createNormalizer } from "./normalizers.ts";
import { addedTokenCount, createPairTemplate, joinPair, trimOffsets } from "./post_processor.ts";
import { createPreTokenizer } from "./pre_tokenizers.ts";
import type { TokenizerFile } from "./tokenizer_file.ts";
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer_folder.ts";
import { createWordModel } from "./word_models.ts";

export type { Encoding } from "./encoding.ts";

/** How a pair is cut into windows. */
export interface WindowOptions {
  /** Longest window in tokens, special tokens included. */
  readonly maxLength: number;
  /** Tokens of the second text that two neighbouring windows share. */
  readonly stride: number;
}

/** A tokenizer for pairs of texts. */
export interface QaTokenizer {
  /** Tokens of one text, without the special tokens of a template. A text with lone surrogates is a `RangeError`. */
  encode(text: string): Encoding;
  /**
   * Windows of a pair: the whole first text with a part of the second, whose neighbours share `stride` tokens. Throws
   * `invalid` where the first text leaves the second no room, or less than the stride.
   */
  encodePair(first: string, second: string, options: WindowOptions): Encoding[];
  /** Longest input by tokenizer_config.json; undefined where it sets none. */
  readonly modelMaxLength: number | undefined;
  /** Id of the classification token, where the tokenizer has one. */
  readonly classificationId: number | undefined;
  /** Id of the token that fills short rows of a batch; 0 where the tokenizer names none (it is masked out anyway). */
  readonly paddingId: number;
  /** Side on which the tokenizer pads, and thereby which text it takes first. */
  readonly paddingSide: "left" | "right";
}

/** The tokenizer of a model folder; throws `not-found`, `bad-model` or `unsupported`. */
export async function loadTokenizer(folder: string): Promise<QaTokenizer> {
  return createTokenizer(await readTokenizerFiles(folder));
}

/** The tokenizer that parsed files describe. */
export function createTokenizer({ tokenizer, config }: TokenizerFiles): QaTokenizer {
  const normalize = createNormalizer(tokenizer.normalizer);
  const splitAdded = createAddedTokenSplitter(tokenizer.added_tokens, normalize);
  const toWords = createPreTokenizer(tokenizer.pre_tokenizer);
  const toPieces = createWordModel(tokenizer.model);
  const template = createPairTemplate(tokenizer.post_processor);

  /** Tokens with their untrimmed offsets. */
  function cut(text: string): Encoding {
    if (!text.isWellFormed()) throw new RangeError("A text to be tokenized must not have lone surrogates");
    const ids: number[] = [], tokens: string[] = [], starts: number[] = [], ends: number[] = [], words: number[] = [];
    let word = 0;
    const push = (id: number, token: string, [start, end]: [number, number]): void => {
      ids.push(id);
      tokens.push(token);
      starts.push(start);
      ends.push(end);
      words.push(word);
    };
    for (const { text: stretch, added } of splitAdded(AlignedText.of(text))) {
      if (added !== undefined) {
        push(added.id, stretch.text(), stretch.original(0, stretch.length));
        word++;
        continue;
      }
      for (const chars of toWords(stretch)) {
        for (const { id, token, start, end } of toPieces(chars.chars)) push(id, token, chars.original(start, end));
        word++;
      }
    }
    const zeros = ids.map(() => 0);
    return { ids, tokens, starts, ends, words, sequences: zeros, typeIds: zeros };
  }

  return {
    encode: (text) => trimOffsets(template, cut(text)),
    encodePair(first, second, { maxLength, stride }): Encoding[] {
      const [one, two] = [cut(first), cut(second)];
      const room = maxLength - addedTokenCount(template) - one.ids.length;
      checkRoom(two.ids.length, room, stride, maxLength);
      const trimmed = trimOffsets(template, one);
      return windowRanges(two.ids.length, room, stride)
        .map(([start, end]) => joinPair(template, trimmed, trimOffsets(template, sliceEncoding(two, start, end))));
    },
    modelMaxLength: config.model_max_length,
    classificationId: tokenId(tokenizer, config.cls_token),
    paddingId: tokenId(tokenizer, config.pad_token) ?? 0,
    paddingSide: config.padding_side ?? "right",
  };
}

/** Windows that a pair may need at most: beyond, one request would keep the model busy for minutes. */
const maxWindows = 1024;

/** Throws `invalid` unless a bounded number of windows of `room` tokens that share `stride` can cover the second text. */
function checkRoom(tokens: number, room: number, stride: number, maxLength: number): void {
  if (tokens <= room) return;
  if (stride < room) {
    const windows = 1 + Math.ceil((tokens - room) / (room - stride));
    if (windows <= maxWindows) return;
    throw new TuckerdError(
      "invalid",
      `The context of ${tokens} tokens needs ${windows} windows, and ${maxWindows} are allowed; shorten it, or ask with a ` +
        `larger max_seq_len than ${maxLength} or a smaller doc_stride than ${stride}`,
      { fields: { field: "context", tokens, windows, max_seq_len: maxLength, doc_stride: stride } },
    );
  }
  throw new TuckerdError(
    "invalid",
    `The question is too long: of max_seq_len ${maxLength} it leaves ${
      Math.max(0, room)
    } tokens for the context, which must ` +
      `be more than doc_stride ${stride}; shorten the question, or ask with a smaller doc_stride`,
    { fields: { field: "question", max_seq_len: maxLength, doc_stride: stride, room: Math.max(0, room) } },
  );
}

function tokenId({ added_tokens, model }: TokenizerFile, token: string | null | undefined): number | undefined {
  if (token == null) return undefined;
  const added = added_tokens.find(({ content }) => content === token);
  if (added !== undefined) return added.id;
  if (model.type !== "Unigram") return Object.hasOwn(model.vocab, token) ? model.vocab[token] : undefined;
  const index = model.vocab.findIndex(([content]) => content === token);
  return index < 0 ? undefined : index;
}
