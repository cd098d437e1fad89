/**
 * `deno task bench`: the project's benchmarks, each against a named baseline in the same run.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { table } from "../../src/cli/tables.ts";
import { TuckerdError } from "../../src/errors.ts";
import { log, print } from "../../src/log.ts";
import type { BenchResult } from "./types.ts";

interface Flags {
  readonly slow: boolean;
  readonly gpu: boolean;
  readonly software: boolean;
  readonly peakTflops: number | undefined;
  readonly out: string | undefined;
}

/** Where the GPU's figures are kept. */
const PAGE = new URL("../../docs/benchmarks.md", import.meta.url).pathname;

/** The CPU's suites run where none is named; the GPU's runs with `--gpu` alone. */
const suites: Readonly<Record<string, (flags: Flags) => Promise<readonly BenchResult[]>>> = {
  decompose: async ({ slow }) => await (await import("./decompose.ts")).benchDecompose({ slow }),
  start: async () => await (await import("./start.ts")).benchStart(),
  rerank: async () => await (await import("./start.ts")).benchRerank(),
  inference: async () => await (await import("./inference.ts")).benchInference(),
  decode: async () => await (await import("./decode.ts")).benchDecode(),
  memory: async () => await (await import("./memory.ts")).benchMemory(),
  gpu: async ({ software, peakTflops, out }) => {
    const [{ benchGpu }, { toMarkdown, toResults, writePage }] = await Promise.all([
      import("./gpu.ts"),
      import("./gpu_report.ts"),
    ]);
    const measured = await benchGpu({ software, peakTflops });
    const path = out ?? (measured.software ? undefined : PAGE);
    if (path !== undefined) {
      await writePage(toMarkdown(measured), path);
      log(0, `bench: written to ${path}`);
    }
    return toResults(measured);
  },
};

const help = `Runs benchmarks, each against a named baseline in the same run.

Usage: deno task bench [options] [SUITE…]

Suites: ${Object.keys(suites).join(", ")} (all but gpu where none is named)

  --gpu              the suite gpu: matrix products and decompositions on WebGPU; writes docs/benchmarks.md
  --peak-tflops N    float32 peak of the device, where it isn't known or isn't right: products are measured against it
  --software         let the suite gpu measure a software adapter, on small sizes; writes nothing unless --out says where
  --out FILE         where the suite gpu writes its page instead of docs/benchmarks.md
  --slow             run baselines that take many minutes
  --json             print results as JSON`;

/** What the arguments ask for; undefined where they are wrong. */
function parse(): { readonly names: readonly string[]; readonly flags: Flags; readonly json: boolean } | undefined {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        gpu: { type: "boolean", default: false },
        software: { type: "boolean", default: false },
        slow: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        "peak-tflops": { type: "string" },
        out: { type: "string" },
      },
    });
    if (values.help) {
      print(help);
      Deno.exit(0);
    }
    const unknown = positionals.filter((name) => !(name in suites));
    if (unknown.length > 0) throw new Error(`there is no suite ${unknown.join(", ")}`);
    const peak = values["peak-tflops"] === undefined ? undefined : Number(values["peak-tflops"]);
    if (peak !== undefined && !(peak > 0)) throw new Error("--peak-tflops needs a number above 0");
    const { gpu, software, slow, json, out } = values;
    const all = Object.keys(suites).filter((name) => (name === "gpu") === gpu);
    if (out === "") throw new Error("--out needs a file");
    return {
      names: positionals.length > 0 ? positionals : all,
      flags: { gpu, software, slow, peakTflops: peak, out },
      json,
    };
  } catch (error) {
    log(0, `bench: ${(error as Error).message}\n\n${help}`);
    return undefined;
  }
}

const asked = parse();
if (asked === undefined) Deno.exit(2);
const results: BenchResult[] = [];
try {
  for (const name of asked.names) results.push(...await suites[name]!(asked.flags));
} catch (error) {
  if (!(error instanceof TuckerdError)) throw error;
  const hint = error.kind === "unavailable" ? "; --software measures a software adapter" : "";
  log(0, `bench: ${error.message}${hint}`);
  Deno.exit(1);
}
if (asked.json) print(JSON.stringify(results, null, 2));
else {
  print(table([
    ["what", "seconds", "against", "seconds", "times faster", "note"],
    ...results.map(({ name, seconds, baseline, baselineSeconds, ratio, note }) => [
      name,
      seconds.toPrecision(3),
      baseline,
      baselineSeconds.toPrecision(3),
      ratio.toFixed(2),
      note,
    ]),
  ]));
}
