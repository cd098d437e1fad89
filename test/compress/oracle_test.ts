/**
 * The whole way, on every encoder export of the oracle: find, decompose in the child process, rewrite, write the folder, and run
 * it in a stock ONNX Runtime session. Expected outputs come from Hugging Face's own code with weights reconstructed by an
 * independent HOOI in float64.
 */
import { Compressor } from "../../src/compress/compressor.ts";
import { Decomposer } from "../../src/compress/decomposer.ts";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { caseInputs, nestedNumbers, oracleExports, oracleReference, oracleTucker } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

const encoders = ["bert", "roberta", "distilbert"];

for (const model of encoders) {
  const reference = oracleReference(model);
  const tucker = oracleTucker(model);
  for (const { file, path } of oracleExports(model)) {
    Deno.test(`${model}/${file}: every intervention, factored and dense`, async (test) => {
      await using store = await FactorStore.open(undefined);
      await using decomposer = new Decomposer(path);
      const compressor = await Compressor.open(await openModelFolder(path), { device: "cpu", store, decomposer });
      const out = await Deno.makeTempDir();
      for (const intervention of tucker.interventions) {
        const layers = intervention.layers.map(({ layer }) => layer).join(",");
        const options = resolveOptions({ ranks: intervention.ranks, layers });
        for (const execution of ["factored", "dense"] as const) {
          await test.step(`${intervention.name} ${execution}`, async () => {
            const folder = `${out}/${intervention.name}-${execution}`;
            const report = await writeModelFolder(compressor, options, { out: folder, execution });
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
    });
  }
}
