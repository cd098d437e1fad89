/**
 * The only user of the console. One ladder, `DEBUG=0..3`: 0 what a user needs to know, 1 a summary of each step, 2 each
 * kernel as it runs, compile times and stack traces, 3 WGSL sources. Lines go to stderr, so that `--json` reports on stdout
 * stay clean. Never log user text (questions, contexts, prompts).
 *
 * @module
 */
// deno-lint-ignore-file no-console -- this file is where the console lives

/** Detail levels of the `DEBUG` ladder. */
export type LogLevel = 0 | 1 | 2 | 3;

const level = readLevel();

function readLevel(): number {
  const value = Number(Deno.env.get("DEBUG") ?? "0");
  return Number.isInteger(value) && value >= 0 ? value : 0;
}

/** Writes one line to stderr if `DEBUG` is at least `at`. */
export function log(at: LogLevel, message: string): void {
  if (level >= at) console.error(message);
}

/** Writes one line to stdout: a report or an answer that the user asked for. */
export function print(message: string): void {
  console.log(message);
}
