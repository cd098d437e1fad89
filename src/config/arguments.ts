/**
 * Reads what was written, on the command line and in the environment, and checks each value by its schema.
 *
 * @module
 */
import { closestString } from "@std/text/closest_string.js";
import { parseArgs } from "node:util";
import type { z } from "zod";
import {
  type OptionName,
  OPTIONS,
  optionsOf,
  type OptionSpec,
  type OptionValues,
  type TaskName,
  variableName,
} from "./options.ts";
import { UsageError } from "./usage_error.ts";

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Values of one source, and whether help or the version was asked for. */
export interface GivenArguments {
  readonly values: OptionValues;
  readonly help: boolean;
  readonly version: boolean;
}

/** The nearest of `names` to a mistyped one, as a hint. */
export function didYouMean(name: string, names: readonly string[]): string {
  const nearest: string = closestString(name, names);
  return `did you mean ${nearest}?`;
}

/**
 * Reads the options of one task.
 *
 * @throws {UsageError} An option that the task doesn't have (the nearest is suggested), one given twice, a missing or an
 * unwanted value, a value that breaks its rule, or a stray argument.
 */
export function readArguments(task: TaskName, args: readonly string[]): GivenArguments {
  const specs = new Map(optionsOf(task).filter(([, spec]) => spec.secret === undefined));
  const names = [...specs.keys()].map((name) => `--${name}`).concat("--help", "--version");
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    tokens: true,
    options: {
      help: { type: "boolean", short: "h" },
      version: { type: "boolean" },
      ...Object.fromEntries(
        [...specs].map(([name, spec]) => [name, { type: spec.placeholder ? "string" : "boolean" }] as const),
      ),
    },
  });
  const asks = (name: string): boolean => tokens.some((token) => token.kind === "option" && token.name === name);
  if (asks("help") || asks("version")) return { values: {}, help: asks("help"), version: asks("version") };
  const given = new Map<OptionName, unknown>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      throw new UsageError({
        setting: `argument ${JSON.stringify(token.value)}`,
        rule: `is not one that ${task} takes`,
        hint: `see deno task ${task} --help`,
      });
    }
    const { name, negated } = flagOf(token.name, specs);
    const spec = specs.get(name);
    if (spec === undefined) {
      const hint = hintFor(token.rawName, task, names);
      throw new UsageError({ setting: token.rawName, rule: `is not an option of ${task}`, hint });
    }
    if (given.has(name)) {
      throw new UsageError({ setting: `--${name}`, rule: "must be given once", hint: "remove one of the two" });
    }
    const value = valueOf({ name, spec, value: token.value, inline: token.inlineValue ?? false, negated });
    given.set(name, check(`--${name}`, spec, value));
  }
  return { values: Object.fromEntries(given), help: false, version: false };
}

/**
 * Reads `TUCKERD_*`. Empty variables count as not set, since container tools write those.
 *
 * @throws {UsageError} A value that breaks its rule.
 */
export function readEnvironment(task: TaskName, env: Environment): OptionValues {
  const given: Record<string, unknown> = {};
  for (const [name, spec] of optionsOf(task)) {
    const variable = variableName(name);
    const value = env[variable];
    if (value === undefined || value === "") continue;
    // Kubernetes sets NAME_PORT=tcp://… for a service called NAME, and so breaks whoever is called tuckerd.
    const linked = name === "port" && value.startsWith("tcp://");
    given[name] = check(
      variable,
      spec,
      value,
      linked
        ? "Kubernetes sets it for a service called tuckerd: set enableServiceLinks: false, or rename the service"
        : undefined,
    );
  }
  return given;
}

/** Checks one written value. */
export function check<S extends z.ZodType>(
  setting: string,
  spec: OptionSpec<S>,
  value: string,
  hint?: string,
): z.output<S> {
  const result = spec.schema.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError({
    setting,
    rule: result.error.issues[0]!.message,
    ...(spec.secret ? {} : { value }),
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Takes `no-` off a flag; of an option with a value it is a part of the name. */
function flagOf(written: string, specs: ReadonlyMap<OptionName, OptionSpec>): { name: OptionName; negated: boolean } {
  const bare = written.replace(/^no-/, "") as OptionName;
  const negated = bare !== written && specs.has(bare) && specs.get(bare)?.placeholder === undefined;
  return { name: negated ? bare : written as OptionName, negated };
}

interface Written {
  readonly name: OptionName;
  readonly spec: OptionSpec;
  readonly value: string | undefined;
  readonly inline: boolean;
  readonly negated: boolean;
}

function valueOf({ name, spec, value, inline, negated }: Written): string {
  if (spec.placeholder === undefined) {
    if (negated && value !== undefined) {
      throw new UsageError({ setting: `--no-${name}`, rule: "takes no value", value });
    }
    return value ?? (negated ? "false" : "true");
  }
  const missing = value === undefined || (!inline && value.startsWith("--"));
  if (missing) {
    throw new UsageError({
      setting: `--${name}`,
      rule: `needs a value (${spec.placeholder})`,
      hint: `write --${name}=VALUE`,
    });
  }
  return value;
}

function hintFor(rawName: string, task: TaskName, names: readonly string[]): string {
  const bare = rawName.replace(/^-+/, "");
  const spec = (OPTIONS as Record<string, OptionSpec>)[bare];
  if (spec?.secret) {
    return `set ${variableName(bare as OptionName)} instead, so that the key stays out of the process list`;
  }
  if (spec !== undefined) return `${spec.tasks.join(" and ")} takes it, ${task} doesn't`;
  return didYouMean(rawName, names);
}
