/**
 * What question answering reads of config.json.
 *
 * @module
 */
import { join } from "@std/path/mod.js";
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import { readJson } from "./tokenizer_folder.ts";

/** Fields of config.json, by Hugging Face's names; `n_positions` is GPT-2's word for `max_position_embeddings`. */
export const modelConfigSchema = z.object({
  model_type: z.string().default(""),
  max_position_embeddings: z.number().int().positive().optional(),
  n_positions: z.number().int().positive().optional(),
  pad_token_id: z.number().int().nullish(),
});
/** A parsed config.json. */
export type ModelConfig = z.infer<typeof modelConfigSchema>;

/** config.json of a model folder; throws `not-found` or `bad-model`. */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, "config.json");
  const config = await readJson(path, modelConfigSchema);
  if (config === undefined) throw new TuckerdError("not-found", `${path} is missing; a model folder needs it`);
  return config;
}

/** Model families whose positions begin after the padding id, as RoBERTa's do. */
const positionsAfterPadding = new Set([
  "camembert",
  "data2vec-text",
  "ibert",
  "longformer",
  "luke",
  "mpnet",
  "roberta",
  "roberta-prelayernorm",
  "xlm-roberta",
  "xlm-roberta-xl",
  "xmod",
]);

/** The first position id of an input. */
export function firstPosition({ model_type, pad_token_id }: ModelConfig): number {
  return positionsAfterPadding.has(model_type) ? (pad_token_id ?? 1) + 1 : 0;
}

/** Longest input in tokens by the model's position table; infinite where it has none. */
export function maxPositions(config: ModelConfig): number {
  const rows = config.max_position_embeddings ?? config.n_positions;
  return rows === undefined ? Infinity : rows - firstPosition(config);
}
