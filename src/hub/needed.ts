/**
 * What a graph needs beside it: configuration, tokenizer and external data, and nothing else of the repository.
 *
 * @module
 */
import { basename, dirname, extname, join } from "node:path/posix";
import { staysInside } from "../config/hub_model.ts";
import type { RepositoryFile } from "./repository.ts";

/** Files by the names that `save_pretrained` of transformers gives them. */
const companionNames = new Set([
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "config.json",
  "generation_config.json",
  "merges.txt",
  "preprocessor_config.json",
  "sentencepiece.bpe.model",
  "special_tokens_map.json",
  "spiece.model",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "vocab.json",
  "vocab.txt",
]);

/**
 * The graph, its companions, and external data by the usual names (`model.onnx_data`, `model.onnx_data_1`,
 * `model.onnx.data`, `model.data`).
 *
 * The companions come from one folder: the graph's own or the one above it, as where a local graph is opened; the first that
 * has both a configuration and a tokenizer, else the first with a configuration.
 */
export function neededWith<File extends Pick<RepositoryFile, "path">>(graph: string, files: readonly File[]): File[] {
  const paths = new Set(files.map(({ path }) => path));
  const folder = dirname(graph);
  const homes = [folder, dirname(folder)];
  const holding = (...names: readonly string[]) =>
    homes.find((home) => names.every((name) => paths.has(join(home, name))));
  const home = holding("config.json", "tokenizer.json") ?? holding("config.json") ?? folder;
  return files.filter(({ path }) =>
    path === graph || (dirname(path) === home && companionNames.has(basename(path))) ||
    (dirname(path) === folder && isUsualData(basename(path), basename(graph)))
  );
}

/** The graph of a decoder's first call, beside that of the later ones: it holds weights whose results those read from the cache. */
export function firstCallOf(graph: string, files: readonly Pick<RepositoryFile, "path">[]): readonly string[] {
  const first = graph.replace(/decoder_with_past_model(?=[^/]*$)/, "decoder_model");
  return first !== graph && files.some(({ path }) => path === first) ? [first] : [];
}

function isUsualData(name: string, graph: string): boolean {
  if (name === graph.replace(/\.onnx$/, ".data")) return true;
  return name.startsWith(graph) && /^[._]data(_\d+)?$/.test(name.slice(graph.length));
}

/** Files that external data of another name could be in: anything in the graph's folder or below that isn't accounted for. */
export function possibleData<File extends Pick<RepositoryFile, "path">>(
  graph: string,
  files: readonly File[],
  needed: readonly File[],
): File[] {
  const folder = dirname(graph);
  return files.filter((file) =>
    (folder === "." || file.path.startsWith(`${folder}/`)) && !needed.includes(file) &&
    ![".onnx", ".json", ".txt", ".md"].includes(extname(file.path))
  );
}

/** The path in the repository of a location that a graph names; undefined where it leads out of the graph's folder. */
export function dataPath(graph: string, location: string): string | undefined {
  const normal = location.replace(/^(\.\/)+/, "");
  return staysInside(normal) ? join(dirname(graph), normal) : undefined;
}
