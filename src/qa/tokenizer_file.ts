/**
 * The parts of tokenizer.json and tokenizer_config.json that question answering reads, as zod schemas.
 *
 * @module
 */
import { z } from "zod";

const pattern = z.union([z.object({ String: z.string() }), z.object({ Regex: z.string() })]);

const bertNormalizer = z.object({
  type: z.literal("BertNormalizer"),
  clean_text: z.boolean().default(true),
  handle_chinese_chars: z.boolean().default(true),
  strip_accents: z.boolean().nullish(),
  lowercase: z.boolean().default(true),
});

/** A normalizer; sequences nest. */
export type NormalizerConfig =
  | z.infer<typeof bertNormalizer>
  | z.infer<typeof simpleNormalizers[number]>
  | { readonly type: "Sequence"; readonly normalizers: readonly NormalizerConfig[] };

const simpleNormalizers = [
  z.object({ type: z.enum(["NFC", "NFD", "NFKC", "NFKD"]) }),
  z.object({ type: z.literal("Lowercase") }),
  z.object({ type: z.literal("StripAccents") }),
  z.object({ type: z.literal("Strip"), strip_left: z.boolean().default(true), strip_right: z.boolean().default(true) }),
  z.object({ type: z.literal("Replace"), pattern, content: z.string() }),
  z.object({ type: z.literal("Prepend"), prepend: z.string() }),
  z.object({ type: z.literal("Precompiled"), precompiled_charsmap: z.string() }),
] as const;

const normalizer: z.ZodType<NormalizerConfig> = z.lazy(() =>
  z.discriminatedUnion("type", [
    bertNormalizer,
    ...simpleNormalizers,
    z.object({ type: z.literal("Sequence"), normalizers: z.array(normalizer) }),
  ])
);

const splitBehavior = z.enum(["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]);
/** What happens to the delimiter where a text is split. */
export type SplitBehavior = z.infer<typeof splitBehavior>;

const simplePreTokenizers = [
  z.object({ type: z.enum(["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]) }),
  z.object({
    type: z.literal("ByteLevel"),
    add_prefix_space: z.boolean().default(true),
    use_regex: z.boolean().default(true),
  }),
  z.object({
    type: z.literal("Metaspace"),
    replacement: z.string().default("▁"),
    prepend_scheme: z.enum(["always", "first", "never"]).optional(),
    add_prefix_space: z.boolean().optional(),
    split: z.boolean().default(true),
  }),
  z.object({ type: z.literal("Split"), pattern, behavior: splitBehavior, invert: z.boolean().default(false) }),
  z.object({ type: z.literal("Punctuation"), behavior: splitBehavior.default("Isolated") }),
  z.object({ type: z.literal("Digits"), individual_digits: z.boolean().default(false) }),
] as const;

/** A pre-tokenizer; sequences nest. */
export type PreTokenizerConfig =
  | z.infer<typeof simplePreTokenizers[number]>
  | { readonly type: "Sequence"; readonly pretokenizers: readonly PreTokenizerConfig[] };

const preTokenizer: z.ZodType<PreTokenizerConfig> = z.lazy(() =>
  z.discriminatedUnion("type", [
    ...simplePreTokenizers,
    z.object({ type: z.literal("Sequence"), pretokenizers: z.array(preTokenizer) }),
  ])
);

const templatePart = z.union([
  z.object({ SpecialToken: z.object({ id: z.string(), type_id: z.number() }) }),
  z.object({ Sequence: z.object({ id: z.enum(["A", "B"]), type_id: z.number() }) }),
]);
/** One part of a pair template: a special token, or one of the two texts. */
export type TemplatePart = z.infer<typeof templatePart>;

const specialToken = z.tuple([z.string(), z.number()]);

const simplePostProcessors = [
  z.object({
    type: z.literal("TemplateProcessing"),
    pair: z.array(templatePart),
    special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })),
  }),
  z.object({ type: z.literal("BertProcessing"), sep: specialToken, cls: specialToken }),
  z.object({
    type: z.literal("RobertaProcessing"),
    sep: specialToken,
    cls: specialToken,
    trim_offsets: z.boolean().default(true),
    add_prefix_space: z.boolean().default(true),
  }),
  z.object({
    type: z.literal("ByteLevel"),
    trim_offsets: z.boolean().default(true),
    add_prefix_space: z.boolean().default(true),
  }),
] as const;

/** A post-processor; sequences nest. */
export type PostProcessorConfig =
  | z.infer<typeof simplePostProcessors[number]>
  | { readonly type: "Sequence"; readonly processors: readonly PostProcessorConfig[] };

const postProcessor: z.ZodType<PostProcessorConfig> = z.lazy(() =>
  z.discriminatedUnion("type", [
    ...simplePostProcessors,
    z.object({ type: z.literal("Sequence"), processors: z.array(postProcessor) }),
  ])
);

const vocabulary = z.record(z.string(), z.number());
const model = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("WordPiece"),
    vocab: vocabulary,
    unk_token: z.string(),
    continuing_subword_prefix: z.string().default("##"),
    max_input_chars_per_word: z.number().default(100),
  }),
  z.object({
    type: z.literal("BPE"),
    vocab: vocabulary,
    merges: z.union([z.array(z.string()), z.array(z.tuple([z.string(), z.string()]))]),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
    fuse_unk: z.boolean().default(false),
    byte_fallback: z.boolean().default(false),
    ignore_merges: z.boolean().default(false),
  }),
  z.object({
    type: z.literal("Unigram"),
    vocab: z.array(z.tuple([z.string(), z.number()])),
    unk_id: z.number().nullish(),
    byte_fallback: z.boolean().default(false),
  }),
]);
/** The model that cuts words into tokens. */
export type ModelConfig = z.infer<typeof model>;

/** Early files leave the model's type out; its fields tell. */
const typedModel = z.preprocess((value) => {
  if (typeof value !== "object" || value === null || "type" in value || !("vocab" in value)) return value;
  const type = Array.isArray(value.vocab) ? "Unigram" : "merges" in value ? "BPE" : "WordPiece";
  return { ...value, type };
}, model);

const addedToken = z.object({
  id: z.number(),
  content: z.string(),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  normalized: z.boolean().default(false),
  special: z.boolean().default(false),
});
/** A token that is found in the text before anything else. */
export type AddedTokenConfig = z.infer<typeof addedToken>;

/** tokenizer.json. */
export const tokenizerSchema = z.object({
  added_tokens: z.array(addedToken).default([]),
  normalizer: normalizer.nullish(),
  pre_tokenizer: preTokenizer.nullish(),
  post_processor: postProcessor.nullish(),
  model: typedModel,
});
/** A parsed tokenizer.json. */
export type TokenizerFile = z.infer<typeof tokenizerSchema>;

const tokenContent = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);

/** tokenizer_config.json, and special_tokens_map.json, which has some of the same fields. */
export const tokenizerConfigSchema = z.object({
  tokenizer_class: z.string().optional(),
  cls_token: tokenContent.nullish(),
  pad_token: tokenContent.nullish(),
  model_max_length: z.number().optional(),
  padding_side: z.enum(["left", "right"]).optional(),
  do_lower_case: z.boolean().optional(),
  strip_accents: z.boolean().nullish(),
  tokenize_chinese_chars: z.boolean().optional(),
  add_prefix_space: z.boolean().optional(),
});
/** A parsed tokenizer_config.json. */
export type TokenizerConfig = z.infer<typeof tokenizerConfigSchema>;
