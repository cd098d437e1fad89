/**
 * Compressors over test models, with a store and a child process that go with them.
 *
 * @module
 */
import { Compressor } from "../../src/compress/compressor.ts";
import { Decomposer } from "../../src/compress/decomposer.ts";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { FactorStore } from "../../src/compress/store.ts";

/** A compressor; dispose it to end its child process and remove its store. */
export interface TestCompressor extends AsyncDisposable {
  readonly compressor: Compressor;
}

/** Opens a model folder or an .onnx file for compression on the CPU. */
export async function openTestCompressor(path: string): Promise<TestCompressor> {
  await using resources = new AsyncDisposableStack();
  const folder = await openModelFolder(path);
  const store = resources.use(await FactorStore.open(undefined));
  const decomposer = resources.use(new Decomposer(folder.graphPath));
  const compressor = await Compressor.open(folder, { device: "cpu", store, decomposer });
  const kept = resources.move();
  return { compressor, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
