/**
 * Patterns of tokenizer.json: literal strings, and regular expressions in Oniguruma's syntax.
 *
 * @module
 */
import { SplitPreTokenizer } from "@huggingface/tokenizers";
import { TuckerdError } from "../errors.ts";

/** A pattern as tokenizer.json writes it. */
export type PatternConfig = { readonly String: string } | { readonly Regex: string };

/** The pattern as a global, unicode-aware JavaScript expression; `unsupported` where JavaScript has no equal. */
export function compilePattern(config: PatternConfig): RegExp {
  if ("String" in config) return new RegExp(RegExp.escape(config.String), "gu");
  try {
    // The library translates Oniguruma's syntax when it builds this pre-tokenizer.
    const { pattern } = new SplitPreTokenizer({ type: "Split", pattern: config, behavior: "Isolated", invert: true });
    if (pattern !== null) return pattern;
  } catch (error) {
    throw unsupported(config.Regex, error);
  }
  throw unsupported(config.Regex, undefined);
}

function unsupported(source: string, cause: unknown): TuckerdError {
  return new TuckerdError("unsupported", `tokenizer.json has a pattern that JavaScript can't express: ${source}`, {
    cause,
  });
}
