/**
 * Which ONNX file of a repository is meant. Repositories hold the same model in several precisions and forms, by the names
 * that Optimum and transformers.js gave them.
 *
 * @module
 */
import { extname } from "node:path/posix";
import { chooseGraphs } from "../config/graph_files.ts";
import type { HubModel } from "../config/hub_model.ts";
import { TuckerdError } from "../errors.ts";
import { spelled } from "./faults.ts";
import type { RepositoryFile } from "./repository.ts";

/** Weights of other frameworks, by which a repository without ONNX is explained. */
const weights = /\.(safetensors|bin|gguf|h5|msgpack|pt|pth|tflite|mlmodel)$/;

/** The ONNX files of a repository. */
export function variantsOf(files: readonly RepositoryFile[]): string[] {
  return files.map(({ path }) => path).filter((path) => extname(path) === ".onnx");
}

/**
 * The graphs to load: the named file; else what `chooseGraphs` takes; else the only one there is.
 *
 * @throws TuckerdError `not-found` (no such file, no ONNX at all) or `unsupported` (nothing but unknown names)
 */
export function chooseVariant(files: readonly RepositoryFile[], model: HubModel): readonly string[] {
  const variants = variantsOf(files);
  const fields = { repository: model.repository, variants };
  const choice = `choose one by hf:${model.repository}:FILE`;
  if (variants.length === 0) throw new TuckerdError("not-found", withoutOnnx(files, model), { fields });
  if (model.file !== undefined) {
    if (variants.includes(model.file)) return [model.file];
    const { file, ...repository } = model;
    throw new TuckerdError("not-found", `${spelled(repository)} has no file "${file}"; it has ${list(variants)}`, {
      fields,
    });
  }
  const { precision } = model;
  const chosen = chooseGraphs(variants, { precision });
  if (chosen.length > 0) return chosen;
  if (precision !== undefined) {
    throw new TuckerdError(
      "not-found",
      `${spelled(model)}: no ONNX file is of the precision ${precision} by its name; ${choice}: ${list(variants)}`,
      { fields },
    );
  }
  if (variants.length === 1) return variants;
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
