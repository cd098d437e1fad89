/**
 * The command line: parses it, runs one task, and turns what goes wrong into one line and an exit status (1 for a failure, 2
 * for wrong usage).
 *
 * @module
 */
import { TuckerdError } from "./errors.ts";
import { log, print } from "./log.ts";
import { type Command, parseCommandLine, UsageError } from "./config.ts";

/** The version of the program, as `/info` and `--version` tell it. */
export const VERSION = "0.1.0";

/** Tasks are imported when they run: `--help` needs no ONNX Runtime. */
async function run(command: Command): Promise<void> {
  switch (command.task) {
    case "help":
      return print(command.text);
    case "version":
      return print(`tuckerd ${VERSION}`);
    case "start":
      return await (await import("./cli/start.ts")).start(command, VERSION);
    case "compress":
      return await (await import("./cli/compress.ts")).compress(command);
    case "spectrum":
      return await (await import("./cli/spectrum.ts")).spectrum(command);
    case "eval":
      return await (await import("./cli/eval.ts")).evaluateTask(command);
  }
}

if (import.meta.main) {
  try {
    await run(parseCommandLine(Deno.args, Deno.env.toObject()));
  } catch (thrown) {
    const error = TuckerdError.from(thrown);
    log(0, `tuckerd: ${error.message.replaceAll(/\s*\n\s*/g, " ")}`);
    log(2, error.stack ?? "");
    // What the command line itself got wrong is usage, wherever it shows: ranks above a model's dimensions included.
    Deno.exit(error instanceof UsageError || error.kind === "invalid" ? 2 : 1);
  }
  Deno.exit(0);
}
