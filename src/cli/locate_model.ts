/**
 * From what `--model` names to a file system path: a model of the Hugging Face hub is fetched first.
 *
 * @module
 */
import { HUB_MODEL_RULE, isHubModel, parseHubModel } from "../config/hub_model.ts";
import { UsageError } from "../config.ts";
import { TuckerdError } from "../errors.ts";
import { decodeModel } from "../onnx/codec.ts";
import { tensorsOf } from "../onnx/model.ts";
import type { LocatedModel, LocateOptions } from "../serve/server.ts";
import { showProgress } from "./progress.ts";

/**
 * Fetches an `hf:` model into the Hugging Face cache, with progress on a terminal; any other name is a path already.
 *
 * @throws UsageError where an `hf:` name or a variable of the hub breaks its rule; TuckerdError as `fetchModel`
 */
export async function locateModel(model: string, { onProgress, signal }: LocateOptions = {}): Promise<LocatedModel> {
  if (!isHubModel(model)) return { path: model };
  const parsed = parseHubModel(model);
  if (parsed === undefined) throw new UsageError({ setting: "--model", rule: HUB_MODEL_RULE, value: model });
  // Imported here, since most starts need no hub.
  const [{ fetchModel }, { readHubSettings }] = await Promise.all([
    import("../hub/fetch_model.ts"),
    import("../hub/settings.ts"),
  ]);
  const show = showProgress(`fetching ${parsed.repository}`);
  const { graphPaths, id } = await fetchModel(parsed, {
    settings: await readHubSettings(Deno.env.toObject()),
    externalData,
    signal,
    onProgress: (share) => {
      show(share);
      onProgress?.(share);
    },
  });
  return { path: graphPaths[0]!, id, graphPaths };
}

/** The files of external data that an ONNX file names, relative to its folder. */
async function externalData(path: string): Promise<readonly string[]> {
  try {
    const { graph } = decodeModel(await Deno.readFile(path));
    const entries = graph === undefined ? [] : [...tensorsOf(graph)].flatMap((tensor) => tensor.externalData);
    return [...new Set(entries.filter(({ key }) => key === "location").map(({ value }) => value))];
  } catch (error) {
    throw new TuckerdError("bad-model", `${path} isn't a whole ONNX model: ${TuckerdError.from(error).message}`, {
      cause: error,
    });
  }
}
