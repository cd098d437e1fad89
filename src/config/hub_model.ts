/**
 * How a model of the Hugging Face hub is named: `hf:owner/name[@revision][:file]`, or a precision in place of the file.
 *
 * @module
 */

import { type Precision, PRECISIONS } from "./graph_files.ts";

/** A model of the hub, as the user names it. */
export interface HubModel {
  /** `owner/name`. */
  readonly repository: string;
  /** Branch, tag or commit; the hub's default is `main`. */
  readonly revision: string;
  /** The ONNX file inside the repository; absent where the default order decides. */
  readonly file?: string;
  /** The precision of its files, where one is asked for instead. */
  readonly precision?: Precision;
}

/** What `--model` must look like where it begins with `hf:`. */
export const HUB_MODEL_RULE = "must have the form hf:owner/name[@revision][:file.onnx], " +
  "such as hf:owner/name@main:onnx/model_quantized.onnx, or end in a precision, such as hf:owner/name:q4 " +
  `(${PRECISIONS.join(", ")})`;

/** Owner and name as the hub allows them; a revision by git's rules, without `:`; then the file. */
const form = /^hf:([\w.-]{1,96}\/[\w.-]{1,96})(?:@([\w./+#=-]{1,255}))?(?::(?:([^:\\@?#]{1,512}\.onnx)|([a-z\d]+)))?$/;

/** Whether a model is named by the hub's form; a folder whose name begins with `hf:` is written `./hf:…`. */
export function isHubModel(model: string): boolean {
  return model.startsWith("hf:");
}

/** The parts of a well-formed name; undefined where it breaks `HUB_MODEL_RULE`. */
export function parseHubModel(model: string): HubModel | undefined {
  const [, repository, revision = "main", file, wanted] = form.exec(model) ?? [];
  if (repository === undefined) return undefined;
  const words = repository.split("/");
  // Names become folders of the cache: `--` separates owner and name there, and a leading dot would leave it.
  if (words.some((word) => /^[.-]|[.-]$|--|\.\.|\.git$/.test(word))) return undefined;
  if (![revision, ...(file === undefined ? [] : [file])].every(staysInside)) return undefined;
  const precision = PRECISIONS.find((name) => name === wanted);
  if (wanted !== precision) return undefined;
  return {
    repository,
    revision,
    ...(file === undefined ? {} : { file }),
    ...(precision === undefined ? {} : { precision }),
  };
}

/** Whether a relative path has no segment that is empty or leads upwards. */
export function staysInside(path: string): boolean {
  return path.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..");
}
