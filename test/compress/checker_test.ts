/**
 * Written files pass ONNX's own checker (Debian: python3-onnx). A machine without it skips this, loudly; with TUCKERD_REQUIRE_ONNX=1,
 * which the project's own CI sets, it fails instead.
 */
import { assertEquals } from "@std/assert/mod.js";
import { Compressor } from "../../src/compress/compressor.ts";
import { Decomposer } from "../../src/compress/decomposer.ts";
import { openModelFolder } from "../../src/compress/model_folder.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { log } from "../../src/log.ts";

const oracle = new URL("../testdata/oracle/", import.meta.url).pathname;
const formats = new URL("../testdata/oracle_formats/", import.meta.url).pathname;
/** One of each way of writing a model, of those whose operators Debian's checker (1.12, opset 17) knows. */
const models = [
  `${oracle}bert/onnx-torch113-opset11/model.onnx`,
  `${oracle}bert/onnx-latest/model.onnx`,
  `${oracle}gpt2/onnx-past/model.onnx`,
  `${oracle}llama-gqa/onnx-past/model.onnx`,
  `${oracle}t5/onnx/encoder_model.onnx`,
  `${formats}gpt2/external-per-tensor/model.onnx`,
  `${formats}bert/fp16/model.onnx`,
  `${formats}bert/int8-qdq/model.onnx`,
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

Deno.test({
  name: "written models pass ONNX's checker, factored and dense",
  ignore,
  fn: async () => {
    const out = await Deno.makeTempDir();
    const files: string[] = [];
    for (const [index, path] of models.entries()) {
      await using store = await FactorStore.open(undefined);
      await using decomposer = new Decomposer(path);
      const compressor = await Compressor.open(await openModelFolder(path), { device: "cpu", store, decomposer });
      for (const execution of ["factored", "dense"] as const) {
        const folder = `${out}/${index}-${execution}`;
        const options = resolveOptions({ ranks: [8, 4, 2] });
        await writeModelFolder(compressor, options, { out: folder, execution });
        files.push(`${folder}/onnx/${path.split("/").at(-1)}`);
      }
    }
    const check = [
      "import sys, onnx",
      "for path in sys.argv[1:]:",
      "    try: onnx.checker.check_model(path)",
      "    except Exception as error: print(path, str(error)[:500])",
    ].join("\n");
    const { success, text } = await runPython(check, files);
    assertEquals([success, text], [true, ""]);
    await Deno.remove(out, { recursive: true });
  },
});
