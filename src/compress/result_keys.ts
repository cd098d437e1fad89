/**
 * Names of stored results.
 *
 * @module
 */
import type { FoundAttention } from "../attention/mod.ts";
import type { OnnxModel } from "../onnx/model.ts";
import { ContentDigests, withoutPlace } from "./content_digests.ts";
import { type Device, type KeptTask, taskKey } from "./layer_task.ts";
import { digestFiles } from "./model_folder.ts";
import { externalFiles } from "./weight_files.ts";

/**
 * How a model's results are named: by the digest of its files, which needs no weight read, or (`sharesLayers`) by that of the layer's
 * weights, which other graphs may have too.
 */
export async function resultKeys(
  { model, found }: { readonly model: OnnxModel; readonly found: FoundAttention },
  { device, sharesLayers = false }: { readonly device: Device; readonly sharesLayers?: boolean },
): Promise<(task: KeptTask) => string> {
  if (sharesLayers) {
    const digests = new ContentDigests(model, found);
    return (task) => taskKey(digests.of(task), device, withoutPlace(task));
  }
  const files = [model, ...model.firstCall === undefined ? [] : [model.firstCall]];
  const digest = await digestFiles(files.flatMap((file) => [file.path, ...externalFiles(file)]));
  return (task) => taskKey(digest, device, task);
}
