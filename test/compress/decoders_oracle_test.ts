/**
 * The whole way, on a decoder of every architecture: find, decompose in the child process, rewrite, write the folder with each kind of
 * cache, and decode greedily in a stock ONNX Runtime session. Expected tokens and logits come from Hugging Face's own code with weights
 * reconstructed by an independent HOOI in float64.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import type { CacheKind } from "../../src/compress/block_form.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { comparable } from "../support/conformance.ts";
import { temporaryFolder } from "../support/folder.ts";
import { greedy } from "../support/greedy.ts";
import { caseInputs, nestedNumbers, oracleExports, oracleReference, oracleTucker } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

/**
 * Caches that get smaller at half ranks: with grouped heads and stack rank 2 there is one key for each query head, than which only z is
 * smaller (not for falcon-mqa's one head of 8).
 */
const CACHES: Readonly<Record<string, readonly CacheKind[]>> = {
  bloom: ["per-head", "compressed"],
  codegen: ["per-head", "compressed"],
  "falcon-mqa": [],
  gemma2: ["compressed"],
  gpt2: ["per-head", "compressed"],
  gptj: ["per-head", "compressed"],
  llama: ["per-head", "compressed"],
  "llama-gqa": ["compressed"],
  qwen3: ["compressed"],
};

/** Whose keys run in r2 numbers per head. */
const SMALL_KEYS = ["bloom", "gpt2"];

for (const [model, smaller] of Object.entries(CACHES)) {
  const { path, file } = oracleExports(model).find(({ file }) => /past\/model/.test(file))!;
  Deno.test(`${model}/${file}: every layer at half ranks, written with each cache, gives PyTorch's logits and tokens`, async () => {
    const reference = oracleReference(model);
    const { ranks, layers, cases, greedy: expected } = oracleTucker(model).interventions.find(({ name }) =>
      name === "half-all-layers"
    )!;
    await using opened = await openTestCompressor(path);
    await using folder = await temporaryFolder();
    const [prompt, wanted] = [nestedNumbers(expected!.prompt), nestedNumbers(expected!.new_tokens)];
    const ways = [
      ...(["factored", "dense"] as const).map((execution) => ({ execution, cache: "full" as const })),
      ...smaller.map((cache) => ({ execution: "factored" as const, cache })),
    ];
    for (const { execution, cache } of ways) {
      const out = `${folder.path}/${execution}-${cache}`;
      const report = await writeModelFolder(opened.compressor, resolveOptions({ ranks }), { out, execution, cache });
      const what = `${execution}, ${cache} cache`;
      const kept = report.layers.map(({ cache }) => cache!.key.kind);
      const kind = cache === "compressed"
        ? "latent"
        : cache === "per-head" && SMALL_KEYS.includes(model)
        ? cache
        : "full";
      assertEquals(kept, kept.map(() => kind), what);
      for (const { layer, relative_error } of layers) {
        const reported = report.layers[Number(layer)]!.relativeError;
        assertNear([reported], [relative_error], { atol: 1e-4, rtol: 0, what: `${what}, layer ${layer}` });
      }
      await using session = await TestSession.load({ path: `${out}/onnx/model.onnx` });
      const single = cases.find(({ name }) => name === "single")!;
      const inputs = caseInputs(reference, "single");
      const { logits } = await session.run(inputs);
      const compared = comparable({ logits: logits! }, { ...single, inputs });
      for (const [output, numbers] of compared) {
        const atol = 1e-3 * largestValue(numbers.expected);
        assertNear(numbers.actual, numbers.expected, { atol, rtol: 0, what: `${what} ${output}` });
      }
      assert(session.inputs.some((name) => name.startsWith("past_key_values.")), "the file decodes without a cache");
      assertEquals(await greedy(session, { prompt, count: wanted.length }), wanted, what);
    }
  });
}
