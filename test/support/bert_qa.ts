/**
 * The dense bert-qa model behind extractive question answering, in an engine's real worker.
 *
 * @module
 */
import { createExtractive, type ExtractiveAnswerer, type ExtractiveOptions } from "../../src/qa/extractive.ts";
import { readModelConfig } from "../../src/qa/model_config.ts";
import { loadTokenizer } from "../../src/qa/tokenizer.ts";
import type { InferenceEngine } from "../../src/runtime/types.ts";
import { modelOf } from "./models.ts";

/** The model's folder, with a slash at its end. */
export const bertQaFolder: string = new URL("../testdata/serving/bert-qa/", import.meta.url).pathname;

/** Installs the model as generation 1; `wrapRun` may watch or change what is run. */
export async function bertQaOn(
  engine: InferenceEngine,
  wrapRun: (run: ExtractiveOptions["run"]) => ExtractiveOptions["run"] = (run) => run,
): Promise<ExtractiveAnswerer> {
  await engine.install(1, modelOf({ path: `${bertQaFolder}onnx/model.onnx` }));
  return createExtractive({
    tokenizer: await loadTokenizer(bertQaFolder),
    config: await readModelConfig(bertQaFolder),
    inputs: engine.inputs,
    run: wrapRun((inputs) => engine.run(1, inputs)),
  });
}
