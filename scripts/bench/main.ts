/**
 * `deno task bench`: the project's benchmarks, each against a named baseline in the same run.
 *
 * @module
 */
import { print } from "../../src/log.ts";
import { table } from "../../src/cli/tables.ts";
import type { BenchResult } from "./types.ts";

const suites: Readonly<Record<string, () => Promise<readonly BenchResult[]>>> = {
  decompose: async () => await (await import("./decompose.ts")).benchDecompose({ slow: Deno.args.includes("--slow") }),
  start: async () => await (await import("./start.ts")).benchStart(),
  memory: async () => await (await import("./memory.ts")).benchMemory(),
  rerank: async () => await (await import("./start.ts")).benchRerank(),
};

const help = `Runs benchmarks, each against a named baseline in the same run.

Usage: deno task bench [--json] [--slow] [SUITE…]

Suites: ${Object.keys(suites).join(", ")} (all of them where none is named)
--slow: with baselines that take many minutes`;

const names = Deno.args.filter((argument) => !argument.startsWith("-"));
const unknown = [
  ...names.filter((name) => !(name in suites)),
  ...Deno.args.filter((a) => a.startsWith("-") && !["--json", "--slow", "--help", "-h"].includes(a)),
];
if (unknown.length > 0) {
  print(`unknown: ${unknown.join(", ")}\n\n${help}`);
  Deno.exit(2);
}
if (Deno.args.includes("--help") || Deno.args.includes("-h")) {
  print(help);
  Deno.exit(0);
}
const results: BenchResult[] = [];
for (const name of names.length > 0 ? names : Object.keys(suites)) results.push(...await suites[name]!());
if (Deno.args.includes("--json")) print(JSON.stringify(results, null, 2));
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
