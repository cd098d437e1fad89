/** `algorithm` `hosvd`: factors sliced from full ones that are kept, at errors that float64 references confirm. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { Compressor } from "../../src/compress/compressor.ts";
import { Decomposer } from "../../src/compress/decomposer.ts";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { oracleExports } from "../support/oracle.ts";

/** Files of a folder and its folders. */
async function filesIn(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile) files.push(`${folder}/${name}`);
    else files.push(...await filesIn(`${folder}/${name}`));
  }
  return files;
}

Deno.test("the first ranks make one full HOSVD a layer, later ones slice it, and a damaged one is made again", async () => {
  const folder = await openModelFolder(oracleExports("bert")[0]!.path);
  const cache = await Deno.makeTempDir();
  await using resources = new AsyncDisposableStack();
  resources.defer(() => Deno.remove(cache, { recursive: true }));
  const store = resources.use(await FactorStore.open(cache));
  const decomposer = resources.use(new Decomposer(folder.graphPath));
  const compressor = await Compressor.open(folder, { device: "cpu", store, decomposer });
  const layers = compressor.blocks.length;
  const compress = async (ranks: readonly [number, number, number]): Promise<readonly number[]> => {
    const options = resolveOptions({ algorithm: "hosvd", ranks });
    const { report } = await compressor.compress(options);
    assertEquals(report.algorithm, "hosvd");
    const expected = (await compressor.preview(options)).layers;
    for (const [i, layer] of report.layers.entries()) {
      assertEquals(layer.ranks, ranks);
      const { relativeError } = expected[i]!;
      assert(Math.abs(layer.relativeError - relativeError) <= 1e-5, `layer ${i}: ${layer.relativeError}`);
    }
    return report.layers.map(({ relativeError }) => relativeError);
  };

  const first = await compress([24, 6, 2]);
  const { report: { layers: converged } } = await compressor.compress(resolveOptions({ ranks: [24, 6, 2] }));
  for (const [i, { relativeError }] of converged.entries()) {
    assert(relativeError < first[i]!, `layer ${i}: HOOI ${relativeError}, sliced ${first[i]}`);
  }

  const sizes = await Promise.all((await filesIn(cache)).map(async (path) => ({ path, ...await Deno.stat(path) })));
  const full = sizes.sort((a, b) => b.size - a.size).slice(0, layers);
  assert(full.every(({ size }) => size > 4 * 4 * 48 * 48), "full factors are as large as the weights");
  await compress([12, 12, 3]);
  const after = await Promise.all(full.map(({ path }) => Deno.stat(path)));
  assertEquals(after.map(({ mtime }) => mtime), full.map(({ mtime }) => mtime));

  await Deno.truncate(full[0]!.path, 1000);
  await compress([6, 6, 4]);
  const mended = (await Deno.stat(full[0]!.path)).size; // to the byte it depends on the seconds that the file tells
  assert(mended > 4 * 4 * 48 * 48, `${mended} bytes: the damaged file was left`);
});
