/**
 * Which ONNX file of a repository is meant. Repositories hold the same model in several precisions and forms, by the names
 * that Optimum and transformers.js gave them.
 *
 * @module
 */
import { basename, extname } from "node:path/posix";
import type { HubModel } from "../config/hub_model.ts";
import { TuckerdError } from "../errors.ts";
import { spelled } from "./faults.ts";
import type { RepositoryFile } from "./repository.ts";

/** Graphs by form: an encoder or a whole model; a decoder with and without past in one; a decoder. */
const forms = ["model", "decoder_model_merged", "decoder_model"];
/** Precisions, the most exact first; names as transformers.js' `dtype` writes them. */
const precisions = ["", "_fp16", "_quantized", "_int8", "_uint8", "_q8", "_q4", "_q4f16", "_int4", "_bnb4"];
const folders = ["onnx/", ""];

/**
 * The default order: full precision before reduced, whole models before decoders, `onnx/` before the root. First match wins.
 */
export const DEFAULT_ORDER: readonly string[] = precisions.flatMap((precision) =>
  forms.flatMap((form) => folders.map((folder) => `${folder}${form}${precision}.onnx`))
);

/** Weights of other frameworks, by which a repository without ONNX is explained. */
const weights = /\.(safetensors|bin|gguf|h5|msgpack|pt|pth|tflite|mlmodel)$/;

/** The ONNX files of a repository. */
export function variantsOf(files: readonly RepositoryFile[]): string[] {
  return files.map(({ path }) => path).filter((path) => extname(path) === ".onnx");
}

/**
 * The graph to load: the named file; else the first of `DEFAULT_ORDER`; else the only one there is.
 *
 * @throws TuckerdError `not-found` (no such file, no ONNX at all) or `unsupported` (an encoder and a decoder in files of
 * their own, or nothing but unknown names)
 */
export function chooseVariant(files: readonly RepositoryFile[], model: HubModel): string {
  const variants = variantsOf(files);
  const fields = { repository: model.repository, variants };
  const choice = `choose one by hf:${model.repository}:FILE`;
  if (variants.length === 0) throw new TuckerdError("not-found", withoutOnnx(files, model), { fields });
  if (model.file !== undefined) {
    if (variants.includes(model.file)) return model.file;
    const { file, ...repository } = model;
    throw new TuckerdError("not-found", `${spelled(repository)} has no file "${file}"; it has ${list(variants)}`, {
      fields,
    });
  }
  if (variants.some((path) => /^encoder_model/.test(basename(path)))) {
    throw new TuckerdError(
      "unsupported",
      `${spelled(model)} is an encoder and a decoder in files of their own, which aren't served together yet; ` +
        `${choice} to work on one of them: ${list(variants)}`,
      { fields },
    );
  }
  const chosen = DEFAULT_ORDER.find((path) => variants.includes(path)) ?? (variants.length === 1 ? variants[0] : null);
  if (chosen != null) return chosen;
  throw new TuckerdError(
    "unsupported",
    `none of the ONNX files of ${spelled(model)} has a usual name, such as onnx/model.onnx; ${choice}: ${
      list(variants)
    }`,
    { fields },
  );
}

function withoutOnnx(files: readonly RepositoryFile[], model: HubModel): string {
  const others = files.map(({ path }) => path).filter((path) => weights.test(path));
  const found = others.length > 0 ? others : files.map(({ path }) => path);
  return `${spelled(model)} holds no ONNX file, ${found.length > 0 ? `only ${list(found)}` : "nor any other"}; ` +
    `export it (optimum-cli export onnx --model ${model.repository} DIR) and give --model DIR, ` +
    "or look for an export of it on the hub";
}

/** At most a dozen names. */
function list(paths: readonly string[]): string {
  const rest = paths.length - 12;
  return paths.slice(0, 12).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}
