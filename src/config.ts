/**
 * Every setting, parsed once: `parseCommandLine` turns arguments and environment into one typed command. An option counts
 * before its `TUCKERD_*` variable, that before `PORT` (for the port), that before the default.
 *
 * @module
 */
import { check, didYouMean, type Environment, readArguments, readEnvironment } from "./config/arguments.ts";
import type { Command, CompressionSettings, ServerSettings } from "./config/commands.ts";
import { helpText } from "./config/help.ts";
import { type OptionName, OPTIONS, type OptionValues, type TaskName, TASKS, variableName } from "./config/options.ts";
import { UsageError } from "./config/usage_error.ts";

export type { Environment } from "./config/arguments.ts";
export {
  type Algorithm,
  ALGORITHMS,
  ATTENTION_NAMES,
  type Budget,
  BUDGETS,
  LASER_NAMES,
  type LaserName,
  MODES,
  type TaskName,
  TASKS,
} from "./config/options.ts";
export { LAYERS_PATTERN } from "./config/values.ts";
export { helpText } from "./config/help.ts";
export { UsageError } from "./config/usage_error.ts";
export type * from "./config/commands.ts";

/** Largest request body that is read, in bytes, where nothing else is asked for. */
export const DEFAULT_MAX_BODY_BYTES = 1 << 20;

/**
 * Parses the command line: a task, then its options.
 *
 * @param args Arguments after the program's name, such as `["start", "--ranks", "64,4,2"]`.
 * @param env Environment variables by name.
 * @throws {UsageError} Wrong usage, in one line: what, the rule, the value, what to do.
 */
export function parseCommandLine(args: readonly string[], env: Environment): Command {
  const [first, ...rest] = args;
  if (first === "--help" || first === "-h" || first === "help") return { task: "help", text: helpText() };
  if (first === "--version") return { task: "version" };
  const task = TASKS.find((name) => name === first);
  if (task === undefined) throw unknownTask(first);
  const { values: options, help, version } = readArguments(task, rest);
  if (help) return { task: "help", text: helpText(task) };
  if (version) return { task: "version" };
  const variables = readEnvironment(task, env);
  const values: OptionValues = { ...withoutTarget(variables, options), ...options };
  const common = {
    ...withoutUndefined({ model: values.model }),
    device: values.device ?? "auto",
    cacheDir: values["cache-dir"] ?? defaultCacheDir(env),
  };
  const inference = values.inference ?? "auto";
  const json = values.json ?? false;
  switch (task) {
    case "start":
      return { task, ...common, inference, compression: compressionOf(values), server: serverOf(values, env) };
    case "compress":
      return {
        task,
        ...common,
        out: required(task, "out", values.out),
        compression: compressionOf(values),
        execution: values.execution ?? "factored",
        cache: values.cache ?? "full",
        json,
      };
    case "spectrum":
      return {
        task,
        ...common,
        layers: values.layers ?? "all",
        layout: values.layout ?? "heads",
        balance: values.balance ?? false,
        ...withoutUndefined({ svg: values.svg }),
        json,
      };
    case "eval":
      return {
        task,
        ...common,
        dataset: required(task, "dataset", values.dataset),
        compression: compressionOf(values),
        inference,
        json,
      };
  }
}

/** Whether only this machine can reach a listening address. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare.endsWith(".localhost") || bare === "::1" || /^127(\.\d{1,3}){3}$/.test(bare);
}

const TARGETS = ["ranks", "energy", "ratio"] as const;

/**
 * The targets are one setting: `--ranks` replaces a `TUCKERD_RATIO`, instead of standing beside it. In mode `laser` the rate is one of
 * them.
 */
function withoutTarget(variables: OptionValues, options: OptionValues): OptionValues {
  const { ranks: _ranks, energy: _energy, ratio: _ratio, "laser-rate": rate, ...rest } = variables;
  const laser = (options.mode ?? variables.mode) === "laser";
  const given = TARGETS.some((name) => options[name] !== undefined) || (laser && options["laser-rate"] !== undefined);
  if (!given) return variables;
  return { ...rest, ...(laser || rate === undefined ? {} : { "laser-rate": rate }) };
}

function compressionOf(values: OptionValues): CompressionSettings {
  const given = TARGETS.filter((name) => values[name] !== undefined);
  const { mode } = values;
  const names = given.map((name) => `--${name}`).join(" and ");
  if (given.length > 1) {
    throw new UsageError({
      setting: names,
      rule: "exclude each other",
      hint: "give one of --ranks, --energy and --ratio",
    });
  }
  if (mode === "none" && given.length > 0) {
    throw new UsageError({ setting: names, rule: "has no meaning with --mode none", hint: "leave one of the two out" });
  }
  if (mode === "auto" && values.ranks !== undefined) {
    throw new UsageError({
      setting: "--mode auto",
      rule: "chooses ranks itself",
      hint: "give --energy or --ratio instead of --ranks",
    });
  }
  const laser = withoutUndefined({ matrices: values["laser-matrices"], rate: values["laser-rate"] });
  checkLaser(mode, values, given);
  return withoutUndefined({
    ranks: values.ranks,
    energy: values.energy,
    compressionRatio: values.ratio,
    mode,
    algorithm: values.algorithm,
    layout: values.layout,
    balance: values.balance,
    layers: values.layers,
    budget: values.budget,
    overrides: values.overrides,
    matrices: values.matrices,
    laser: Object.keys(laser).length === 0 ? undefined : laser,
  });
}

/** What only some modes take. */
function checkLaser(mode: OptionValues["mode"], values: OptionValues, targets: readonly string[]): void {
  const laser = (["laser-matrices", "laser-rate"] as const).filter((name) => values[name] !== undefined);
  if (laser.length > 0 && mode !== "laser" && mode !== "4d-tucker-laser") {
    throw new UsageError({
      setting: `--${laser[0]}`,
      rule: `has no meaning with --mode ${mode ?? "4d-tucker"}`,
      hint: "add --mode laser or --mode 4d-tucker-laser",
    });
  }
  if (mode === "laser" && values["laser-rate"] !== undefined && targets.length > 0) {
    throw new UsageError({
      setting: `--laser-rate and --${targets[0]}`,
      rule: "exclude each other with --mode laser",
      hint: "the rate and an energy or a ratio both say how far to truncate: give one",
    });
  }
  if (values.algorithm === "hosvd" && mode !== undefined && !mode.startsWith("4d-tucker")) {
    throw new UsageError({
      setting: "--algorithm hosvd",
      rule: `has no meaning with --mode ${mode}`,
      hint: "use --mode 4d-tucker or 4d-tucker-laser",
    });
  }
  if (values.matrices !== undefined && mode !== "3d-tucker") {
    throw new UsageError({
      setting: "--matrices",
      rule: `has no meaning with --mode ${mode ?? "4d-tucker"}`,
      hint: "add --mode 3d-tucker, or use --laser-matrices with --mode laser",
    });
  }
}

function serverOf(values: OptionValues, env: Environment): ServerSettings {
  const host = values.host ?? "127.0.0.1";
  const apiKey = values["api-key"];
  const adminKey = values["admin-key"];
  if (apiKey !== undefined && apiKey === adminKey) {
    throw new UsageError({
      setting: "TUCKERD_ADMIN_KEY",
      rule: "must differ from TUCKERD_API_KEY",
      hint: "otherwise whoever may ask may also change the ranks",
    });
  }
  return {
    host,
    port: values.port ?? (env.PORT ? check("PORT", OPTIONS.port, env.PORT) : 8000),
    loopback: isLoopback(host),
    ...withoutUndefined({ apiKey, adminKey }),
    maxBodyBytes: values["max-body"] ?? DEFAULT_MAX_BODY_BYTES,
    queue: values.queue ?? 64,
    generations: values.generations ?? 8,
  };
}

/** Drops what isn't set: under exact optional types, absent and `undefined` differ. */
function withoutUndefined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function defaultCacheDir(env: Environment): string {
  // The XDG specification says that a relative path is to be ignored.
  if (env.XDG_CACHE_HOME?.startsWith("/")) return `${env.XDG_CACHE_HOME}/tuckerd`;
  const home = env.HOME || env.USERPROFILE;
  if (home) return `${home}/.cache/tuckerd`;
  throw new UsageError({
    setting: "TUCKERD_CACHE_DIR",
    rule: "must be set where neither XDG_CACHE_HOME nor HOME is",
    hint: "name a folder that may be written, such as /tmp/tuckerd",
  });
}

function required(task: TaskName, name: OptionName, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new UsageError({
    setting: `--${name}`,
    rule: `is required by ${task}`,
    hint: `write --${name} ${OPTIONS[name].placeholder ?? ""}, or set ${variableName(name)}`,
  });
}

function unknownTask(name: string | undefined): UsageError {
  const tasks = TASKS.join(", ");
  if (name === undefined) {
    return new UsageError({ setting: "task", rule: `must be one of ${tasks}`, hint: "see --help" });
  }
  return new UsageError({
    setting: "task",
    rule: `must be one of ${tasks}`,
    value: name,
    hint: didYouMean(name, TASKS),
  });
}
