/**
 * A model folder in the Hugging Face layout: where its graph is, what its config.json says, and a digest of its content.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { chooseGraphs } from "../config/graph_files.ts";
import { TuckerdError } from "../errors.ts";

/** The part of config.json that this room reads; everything else passes through. */
const ModelConfig = z.looseObject({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().nullish(),
});
/** config.json, parsed; unknown keys kept. */
export type ModelConfig = z.infer<typeof ModelConfig>;

/** A located model. */
export interface ModelFolder {
  /** The folder that holds config.json (or the graph, where there is none). */
  readonly path: string;
  /** The model's public name: the folder's. */
  readonly id: string;
  /** The graph file; the first one of a model that is kept in several. */
  readonly graphPath: string;
  /** All graph files: one, or an encoder, a decoder and what else the model consists of. */
  readonly graphPaths: readonly string[];
  readonly config: ModelConfig;
  /** First of config.json's architectures, else its model_type, else `unknown`. */
  readonly architecture: string;
}

/**
 * Finds the graphs and the configuration of a model.
 *
 * @param location a folder in the Hugging Face layout, or an .onnx file
 * @param graphPaths the model's graphs, where they are known already
 * @throws TuckerdError `not-found` (no such folder, no graph in it) or `bad-model` (config.json isn't a JSON object)
 */
export async function openModelFolder(location: string, graphPaths?: readonly string[]): Promise<ModelFolder> {
  const path = resolve(location);
  const stat = await statOrUndefined(path);
  if (stat === undefined) {
    throw new TuckerdError(
      "not-found",
      `model "${location}" doesn't exist: expected a folder with config.json and onnx/model.onnx, or an .onnx file`,
    );
  }
  const graphs = graphPaths ?? (stat.isDirectory ? await findGraphs(path, location) : [path]);
  const folder = stat.isDirectory ? path : dirname(path);
  const home = await firstFolderWith("config.json", [folder, dirname(folder)]) ?? folder;
  const config = await readConfig(join(home, "config.json"));
  return {
    path: home,
    id: basename(home),
    graphPath: graphs[0]!,
    graphPaths: graphs,
    config,
    architecture: config.architectures?.[0] ?? config.model_type ?? "unknown",
  };
}

/**
 * A folder whose model is one graph, for what works on one.
 *
 * @throws TuckerdError `unsupported` naming the graphs, where there are several
 */
export function singleGraph(folder: ModelFolder): ModelFolder {
  if (folder.graphPaths.length === 1) return folder;
  const names = folder.graphPaths.map((path) => basename(path)).join(", ");
  throw new TuckerdError(
    "unsupported",
    `${folder.id} is kept in several graphs (${names}), which only compress takes together; name one of the files`,
  );
}

async function findGraphs(path: string, location: string): Promise<readonly string[]> {
  const files = [...await onnxFiles(path, "onnx/"), ...await onnxFiles(path, "")];
  const graphs = chooseGraphs(files, { everyDecoder: true });
  if (graphs.length > 0) return graphs.map((name) => join(path, name));
  throw new TuckerdError(
    "not-found",
    `model folder "${location}" holds no graph by a usual name (onnx/model.onnx, model.onnx, encoder_model.onnx, …)${
      files.length === 0 ? "" : `, only ${files.join(", ")}`
    }; ${
      files.length === 0 ? "export the model to ONNX first (optimum-cli export onnx), or " : ""
    }name the .onnx file itself`,
  );
}

/** Names, relative to `path`, of the ONNX files in one of its folders. */
async function onnxFiles(path: string, folder: string): Promise<readonly string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(join(path, folder))) {
      if (!entry.isDirectory && entry.name.endsWith(".onnx")) names.push(`${folder}${entry.name}`);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
  }
  return names.sort();
}

async function firstFolderWith(name: string, folders: readonly string[]): Promise<string | undefined> {
  for (const folder of folders) {
    if ((await statOrUndefined(join(folder, name)))?.isFile) return folder;
  }
  return undefined;
}

/** An absent config.json is an empty one: `compress` needs none. */
async function readConfig(path: string): Promise<ModelConfig> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    throw new TuckerdError("bad-model", `can't read ${path}: ${(error as Error).message}`, { cause: error });
  }
  try {
    return ModelConfig.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new TuckerdError("bad-model", `${path} isn't a model configuration (a JSON object): ${why}`, {
      cause: error,
    });
  }
}

async function statOrUndefined(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/**
 * SHA-256 of the named files' content, in order, as hex. Files are streamed, so size doesn't matter.
 *
 * @throws Deno.errors.NotFound where a file is missing
 */
export async function digestFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(1 << 20);
  for (const path of paths) {
    using file = await Deno.open(path);
    hash.update(`${(await file.stat()).size}:`);
    for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) {
      hash.update(buffer.subarray(0, count));
    }
  }
  return hash.digest("hex");
}

/** SHA-256 of a text, as hex. */
export function digestText(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
