/**
 * Written files pass ONNX's own checker (Debian: python3-onnx). A machine without it skips this, loudly; with TUCKERD_REQUIRE_ONNX=1,
 * which the project's own CI sets, it fails instead.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { openGraphs } from "../../src/compress/model_graphs.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { log } from "../../src/log.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { oracleExports, oracleFormats, oracleModels } from "../support/oracle.ts";
import { factoredForm } from "../support/factored.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { seeded } from "../support/random_tucker.ts";

const oracle = new URL("../testdata/oracle/", import.meta.url).pathname;
const formats = new URL("../testdata/oracle_formats/", import.meta.url).pathname;
/** Written the whole way: one file, external data, half precision, an encoder with its decoder. */
const models = [
  `${oracle}bert/onnx-torch113-opset11/model.onnx`,
  `${oracle}t5`,
  `${formats}gpt2/external-per-tensor/model.onnx`,
  `${formats}bert/fp16/model.onnx`,
];
// The system's Python has Debian's package; another one on the PATH may not.
const python = "/usr/bin/python3";

async function runPython(code: string, args: readonly string[]): Promise<{ success: boolean; text: string }> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(python, { args: ["-c", code, ...args] }).output();
    const decoder = new TextDecoder();
    return { success, text: decoder.decode(stdout) + decoder.decode(stderr) };
  } catch (error) {
    return { success: false, text: String(error) };
  }
}

const present = (await runPython("import onnx", [])).success;
const ignore = !present && Deno.env.get("TUCKERD_REQUIRE_ONNX") !== "1";
if (ignore) log(0, "NO ONNX CHECKER: written files are not checked. Install it (Debian: python3-onnx).");

/** The files that ONNX's checker refuses, with what it says. */
async function refusedBy(files: readonly string[]): Promise<string> {
  const check = [
    "import sys, onnx",
    "for path in sys.argv[1:]:",
    "    try: onnx.checker.check_model(path)",
    "    except Exception as error: print(path, str(error)[:500])",
  ].join("\n");
  const { success, text } = await runPython(check, files);
  return success ? text : `the checker failed: ${text}`;
}

Deno.test({
  name: "written models pass ONNX's checker, factored and dense",
  ignore,
  fn: async () => {
    const out = await Deno.makeTempDir();
    const files: string[] = [];
    for (const [index, path] of models.entries()) {
      await using resources = new AsyncDisposableStack();
      const store = resources.use(await FactorStore.open(undefined));
      const graphs = await openGraphs(await openModelFolder(path), { device: "cpu", store }, resources);
      for (const execution of ["factored", "dense"] as const) {
        const folder = `${out}/${index}-${execution}`;
        await writeModelFolder(graphs, resolveOptions({ ranks: [8, 4, 2] }), { out: folder, execution });
        files.push(...graphs.folder.graphPaths.map((graph) => `${folder}/onnx/${graph.split("/").at(-1)}`));
      }
    }
    assertEquals(await refusedBy(files), "");
    await Deno.remove(out, { recursive: true });
  },
});

Deno.test({
  name:
    "what passes ONNX's checker does so rewritten: factors as initializers, dense, with a compressed or latent cache",
  ignore,
  fn: async () => {
    const out = await Deno.makeTempDir();
    const random = seeded(7);
    const all = [
      ...oracleModels().flatMap((model) => oracleExports(model).slice(-1)),
      ...oracleFormats().filter(({ format }) => !format.startsWith("external")),
    ];
    // Debian's checker (1.12, opset 17) doesn't know the operators of some originals: nothing is to be learned from those.
    const unknown = await refusedBy(all.map(({ path }) => path));
    const subjects = all.filter(({ path }) => !unknown.includes(path));
    const families = new Set(subjects.map(({ model }) => model));
    assert(subjects.length >= 20 && families.size >= 12, `the checker knows only ${subjects.map(({ file }) => file)}`);
    const files: string[] = [];
    for (const { model: name, file, path } of subjects) {
      const model = await loadModel(path);
      const { blocks } = findAttention(model);
      const caches = blocks.some(({ cacheNumbersPerToken }) => cacheNumbersPerToken > 0);
      for (const cache of caches ? ["full", "compressed", "latent"] as const : ["full"] as const) {
        const forms = new Map(blocks.map((block) => [block.layer, factoredForm(block, 2, cache)]));
        const made = withRandomFactors(model, forms, random);
        const closed = closedModel(model, forms, made);
        const where = `${out}/${name}/${file}`.replace(/\.onnx$/, "");
        await saveModel(closed, `${where}-${cache}.onnx`);
        files.push(`${where}-${cache}.onnx`);
        if (cache === "compressed") continue;
        const dense = rewriteDense(model, made.weights);
        await saveModel(dense, `${where}-dense.onnx`);
        files.push(`${where}-dense.onnx`);
      }
    }
    assertEquals(await refusedBy(files), "");
    await Deno.remove(out, { recursive: true });
  },
});
