/**
 * Reads a tokenizer's files from a model folder.
 *
 * @module
 */
import { join } from "@std/path/mod.js";
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import {
  type NormalizerConfig,
  type PreTokenizerConfig,
  type TokenizerConfig,
  tokenizerConfigSchema,
  type TokenizerFile,
  tokenizerSchema,
} from "./tokenizer_file.ts";

/** A tokenizer's files, parsed. */
export interface TokenizerFiles {
  readonly tokenizer: TokenizerFile;
  readonly config: TokenizerConfig;
}

/**
 * tokenizer.json with tokenizer_config.json and special_tokens_map.json, of which the last two may be missing. Throws
 * `not-found` without a tokenizer.json, `bad-model` for a file that can't be understood.
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const tokenizer = await readJson(join(folder, "tokenizer.json"), tokenizerSchema);
  if (tokenizer === undefined) {
    throw new TuckerdError(
      "not-found",
      `${
        join(folder, "tokenizer.json")
      } is missing; question answering needs it (save the model with a fast tokenizer)`,
    );
  }
  const specials = await readJson(join(folder, "special_tokens_map.json"), tokenizerConfigSchema);
  const config = await readJson(join(folder, "tokenizer_config.json"), tokenizerConfigSchema);
  const merged = { ...specials, ...config };
  return { tokenizer: withOverrides(tokenizer, merged), config: merged };
}

/** Reads and checks a JSON file; undefined where there is none. */
export async function readJson<Output>(path: string, schema: z.ZodType<Output>): Promise<Output | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new TuckerdError("bad-model", `${path} can't be read: ${TuckerdError.from(error).message}`, { cause: error });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new TuckerdError("bad-model", `${path} isn't JSON: ${TuckerdError.from(error).message}`, { cause: error });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.slice(0, 3).map(({ path: at, message }) =>
    `${at.join(".") || "(root)"}: ${message}`
  );
  throw new TuckerdError("bad-model", `${path} isn't what tuckerd reads: ${faults.join("; ")}`, {
    cause: parsed.error,
  });
}

/**
 * What tokenizer_config.json says about case, accents, Chinese characters and the prefix space counts before tokenizer.json,
 * as in the tokenizer classes of transformers.
 */
function withOverrides(tokenizer: TokenizerFile, config: TokenizerConfig): TokenizerFile {
  return {
    ...tokenizer,
    normalizer: tokenizer.normalizer && overrideNormalizer(tokenizer.normalizer, config),
    pre_tokenizer: tokenizer.pre_tokenizer && overridePreTokenizer(tokenizer.pre_tokenizer, config),
  };
}

function overrideNormalizer(normalizer: NormalizerConfig, config: TokenizerConfig): NormalizerConfig {
  if (normalizer.type !== "BertNormalizer") return normalizer;
  return {
    ...normalizer,
    lowercase: config.do_lower_case ?? normalizer.lowercase,
    strip_accents: config.strip_accents === undefined ? normalizer.strip_accents : config.strip_accents,
    handle_chinese_chars: config.tokenize_chinese_chars ?? normalizer.handle_chinese_chars,
  };
}

function overridePreTokenizer(preTokenizer: PreTokenizerConfig, config: TokenizerConfig): PreTokenizerConfig {
  if (preTokenizer.type !== "ByteLevel" || config.add_prefix_space === undefined) return preTokenizer;
  return { ...preTokenizer, add_prefix_space: config.add_prefix_space };
}
