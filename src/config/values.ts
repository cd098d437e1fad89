/**
 * How values are written on the command line and in variables: zod schemas over text, whose messages are the rule that a value breaks.
 *
 * @module
 */
import { z } from "zod";

/** A list of layers: `all`, or numbers and ranges such as `0,2-5`. */
export const LAYERS_PATTERN = /^(all|\d+(-\d+)?(,\d+(-\d+)?)*)$/;

/** One of a few words. */
export function oneOf<const T extends readonly [string, ...string[]]>(values: T): z.ZodEnum<{ [K in T[number]]: K }> {
  return z.enum(values, { error: `must be one of ${values.join(", ")}` });
}

/** Names of a list, with commas between. */
export function listOf<const T extends readonly [string, ...string[]]>(values: T): z.ZodType<readonly T[number][]> {
  const rule = `must be one or more of ${values.join(", ")}, with commas between`;
  const known = (name: string): name is T[number] => values.includes(name);
  return z.string().transform((value, context) => {
    const names = value.split(",").map((name) => name.trim());
    if (names.every(known)) return names;
    context.addIssue({ code: "custom", message: rule });
    return z.NEVER;
  });
}

/** Digits only, so that `8e3`, ` 8` and `0x10` are refused rather than guessed at. */
export function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER): z.ZodType<number> {
  const rule = maximum === Number.MAX_SAFE_INTEGER
    ? `must be an integer of at least ${minimum}`
    : `must be an integer from ${minimum} to ${maximum}`;
  return z.string().regex(/^\d+$/, rule).transform(Number).pipe(z.number().min(minimum, rule).max(maximum, rule));
}

/** A plain number. */
export function decimal(rule: string, holds: (value: number) => boolean): z.ZodType<number> {
  return z.string().regex(/^\d*\.?\d+(e[+-]?\d+)?$/i, rule).transform(Number).refine(holds, rule);
}

/** Any text. */
export const text = z.string().min(1, "must not be empty");
/** A switch. */
export const flag = z.enum(["true", "false", "1", "0"], { error: "must be true or false" })
  .transform((value) => value === "true" || value === "1");
/** A key, which is never shown. */
export const secret = z.string().regex(/^[\x21-\x7e]+$/, "must be visible ASCII characters without spaces");

/** `r1,r2,r3`. */
export const ranks = z.string().regex(
  /^[1-9]\d{0,8},[1-9]\d{0,8},[1-9]\d{0,8}$/,
  "must be three positive integers r1,r2,r3 (hidden, head and stack rank)",
).transform((value) => value.split(",").map(Number) as [number, number, number]);

/** `all`, or numbers and ascending ranges. */
export const layers = z.string().regex(LAYERS_PATTERN, "must be all, or layer numbers and ranges such as 0,2-5")
  .refine(rangesAscend, "must have ranges that ascend, such as 2-5");

/** Single layers with ranks of their own, or none: `3=96,24,4;0=skip`. */
export const overrides = z.string().transform(parseOverrides);

/** One layer's exception to what holds for all. */
interface LayerOverride {
  readonly ranks?: [number, number, number];
  readonly skip?: boolean;
}

const overridesRule = "must be LAYER=R1,R2,R3 or LAYER=skip, with semicolons between, each layer once";

function parseOverrides(value: string, context: z.RefinementCtx): Record<string, LayerOverride> {
  const overrides: Record<string, LayerOverride> = {};
  for (const part of value.split(";").map((each) => each.trim())) {
    const [, layer, setting] = /^(\d{1,6})=(skip|[1-9]\d{0,8},[1-9]\d{0,8},[1-9]\d{0,8})$/.exec(part) ?? [];
    const name = String(Number(layer));
    if (layer === undefined || setting === undefined || Object.hasOwn(overrides, name)) {
      context.addIssue({ code: "custom", message: overridesRule });
      return z.NEVER;
    }
    overrides[name] = setting === "skip"
      ? { skip: true }
      : { ranks: setting.split(",").map(Number) as [number, number, number] };
  }
  return overrides;
}

function rangesAscend(value: string): boolean {
  return value.split(",").every((part) => {
    const [first, last] = part.split("-").map(Number);
    return last === undefined || first! <= last;
  });
}
