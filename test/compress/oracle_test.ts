/**
 * The whole way, on every encoder export of the oracle: find, decompose in the child process, rewrite, write the folder, and run
 * it in a stock ONNX Runtime session. Expected outputs come from Hugging Face's own code with weights reconstructed by an
 * independent HOOI in float64.
 */
import { assertEquals } from "@std/assert/mod.js";
import { Compressor } from "../../src/compress/compressor.ts";
import { Decomposer } from "../../src/compress/decomposer.ts";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { skipGpu } from "../gpu/adapter.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { caseInputs, nestedNumbers, oracleExports, oracleReference, oracleTucker } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

const encoders = ["bert", "roberta", "distilbert"];

/** Every export on the CPU; on WebGPU one of each model, since the exports hold the same weights. */
const runs = encoders.flatMap((model) => {
  const exports = oracleExports(model);
  const onGpu = exports.filter(({ file }) => file === "onnx/model.onnx");
  return [
    ...exports.map((each) => ({ ...each, device: "cpu" as const, ignore: false })),
    ...onGpu.map((each) => ({ ...each, device: "webgpu" as const, ignore: skipGpu })),
  ];
});

for (const { model, file, path, device, ignore } of runs) {
  const reference = oracleReference(model);
  const tucker = oracleTucker(model);
  Deno.test({
    name: `${model}/${file} on ${device}: every intervention, factored and dense`,
    ignore,
    fn: async (test) => {
      await using store = await FactorStore.open(undefined);
      await using decomposer = new Decomposer(path);
      const compressor = await Compressor.open(await openModelFolder(path), { device, store, decomposer });
      const out = await Deno.makeTempDir();
      for (const intervention of tucker.interventions) {
        const layers = intervention.layers.map(({ layer }) => layer).join(",");
        const options = resolveOptions({ ranks: intervention.ranks, layers });
        for (const execution of ["factored", "dense"] as const) {
          await test.step(`${intervention.name} ${execution}`, async () => {
            const folder = `${out}/${intervention.name}-${execution}`;
            const report = await writeModelFolder(compressor, options, { out: folder, execution });
            assertEquals(report.devices.tucker.backend, device);
            for (const { layer, relative_error } of intervention.layers) {
              const reported = report.layers[Number(layer)]!;
              const place = { atol: 1e-4, rtol: 0, what: `layer ${layer}` };
              assertNear([reported.relativeError], [relative_error], place);
              assertNear([reported.compressionRatio], [intervention.compression_ratio], place);
            }
            await using session = await TestSession.load({ path: `${folder}/onnx/model.onnx` });
            for (const { name, outputs } of intervention.cases) {
              const actual = await session.run(caseInputs(reference, name));
              for (const [output, nested] of Object.entries(outputs)) {
                const expected = nestedNumbers(nested);
                const limit = intervention.name === "full" ? 1e-4 : 1e-3 * largestValue(expected);
                const difference = largestDifference(actual[output]!.data, expected);
                if (!(difference <= limit)) {
                  throw new Error(`${name} ${output}: off by ${difference}, allowed ${limit}`);
                }
              }
            }
          });
        }
      }
      await Deno.remove(out, { recursive: true });
    },
  });
}
