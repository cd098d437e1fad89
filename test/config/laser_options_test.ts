/** Options of the laser modes, matrix choices and budgets on the command line. */
import { assertEquals, assertThrows } from "@std/assert/mod.js";
import { parseCommandLine, UsageError } from "../../src/config.ts";

const home = { HOME: "/home/somebody" };

function compressionOf(args: readonly string[], env: Record<string, string> = {}): unknown {
  const command = parseCommandLine(["start", ...args], { ...home, ...env });
  return "compression" in command ? command.compression : undefined;
}

Deno.test("matrices, rates and budgets arrive as requests have them", () => {
  assertEquals(compressionOf(["--mode", "laser", "--laser-matrices", "ffn, query", "--laser-rate", "9.9"]), {
    mode: "laser",
    laser: { matrices: ["ffn", "query"], rate: 9.9 },
  });
  assertEquals(compressionOf(["--mode", "4d-tucker-laser", "--ranks", "8,4,2", "--laser-rate", "0"]), {
    mode: "4d-tucker-laser",
    ranks: [8, 4, 2],
    laser: { rate: 0 },
  });
  assertEquals(compressionOf(["--mode", "3d-tucker", "--matrices", "key,value", "--ratio", "2", "--budget", "layer"]), {
    mode: "3d-tucker",
    matrices: ["key", "value"],
    compressionRatio: 2,
    budget: "layer",
  });
  assertEquals(compressionOf(["--energy", "0.9"], { TUCKERD_BUDGET: "global" }), { energy: 0.9, budget: "global" });
});

Deno.test("a rate on the command line replaces a ratio of the environment, and the other way round", () => {
  const mode = { TUCKERD_MODE: "laser" };
  assertEquals(compressionOf(["--laser-rate", "5"], { ...mode, TUCKERD_RATIO: "4" }), {
    mode: "laser",
    laser: { rate: 5 },
  });
  assertEquals(compressionOf(["--ratio", "4"], { ...mode, TUCKERD_LASER_RATE: "5" }), {
    mode: "laser",
    compressionRatio: 4,
  });
  const both = { TUCKERD_MODE: "4d-tucker-laser", TUCKERD_LASER_RATE: "5" };
  assertEquals(compressionOf(["--ratio", "4"], both), {
    mode: "4d-tucker-laser",
    compressionRatio: 4,
    laser: { rate: 5 },
  });
});

Deno.test("what has no meaning in a mode, or isn't a name, is wrong usage", () => {
  const wrong: [string[], string][] = [
    [["--laser-rate", "5"], "--mode laser"],
    [["--mode", "auto", "--laser-matrices", "ffn"], "--mode auto"],
    [["--mode", "laser", "--laser-rate", "5", "--energy", "0.9"], "exclude each other"],
    [["--mode", "laser", "--laser-rate", "10"], "below 10"],
    [["--mode", "laser", "--laser-matrices", "fc_middle"], "fc_in"],
    [["--mode", "laser", "--laser-matrices", ""], "one or more"],
    [["--mode", "laser", "--matrices", "query"], "--laser-matrices"],
    [["--mode", "3d-tucker", "--matrices", "fc_in"], "query"],
    [["--budget", "all"], "layer, global"],
  ];
  for (const [args, text] of wrong) assertThrows(() => compressionOf(args), UsageError, text);
});
