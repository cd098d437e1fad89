/**
 * Says in one line what a request got wrong: field path, rule, actual value.
 *
 * @module
 */
import type { Context } from "hono";
import type { z } from "@hono/zod-openapi";
import { HttpProblem } from "./errors.ts";

/** A text longer than this is described, not repeated. */
const LONGEST_ECHO = 80;
/** The text names as many faults; `errors` holds them all. */
const LONGEST_LIST = 5;

/** Where a validator looks, as the texts name it. */
const PLACES: Readonly<Record<string, string>> = { json: "body", param: "path", query: "query", header: "header" };

/** One broken rule. */
interface Fault {
  readonly path: string;
  readonly rule: string;
  readonly value?: string;
}

/**
 * What a failed validation throws, for OpenAPIHono's `defaultHook`.
 *
 * @throws {HttpProblem} `invalid`, with all the faults.
 */
export async function refuseInvalid(
  result:
    & { readonly target: string }
    & ({ readonly success: true } | { readonly success: false; readonly error: z.ZodError }),
  c: Context,
): Promise<void> {
  if (result.success) return;
  const input = await inputOf(result.target, c);
  const place = PLACES[result.target] ?? result.target;
  const faults = result.error.issues.flatMap((issue) => faultsOf(issue, place, input));
  const more = faults.length > LONGEST_LIST ? [`${faults.length - LONGEST_LIST} more`] : [];
  const detail = [...faults.slice(0, LONGEST_LIST).map(sentence), ...more].join("; ");
  throw new HttpProblem("invalid", detail, { extensions: { errors: faults } });
}

function sentence(fault: Fault): string {
  return `${fault.path} ${fault.rule}${fault.value === undefined ? "" : `, got ${fault.value}`}`;
}

async function inputOf(target: string, c: Context): Promise<unknown> {
  if (target === "json") return await c.req.json();
  if (target === "query") return c.req.query();
  if (target === "param") return c.req.param();
  return c.req.header();
}

function faultsOf(issue: z.core.$ZodIssue, place: string, input: unknown): Fault[] {
  const path = pathText(place, issue.path);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ path: pathText(place, [...issue.path, key]), rule: "is not a known parameter" }));
  }
  const value = valueAt(input, issue.path);
  if (value === undefined) return [{ path, rule: issue.code === "custom" ? issue.message : "is required" }];
  return [{ path, rule: ruleOf(issue), ...(issue.code === "custom" ? {} : { value: describe(value) }) }];
}

function ruleOf(issue: z.core.$ZodIssue): string {
  if (issue.message.startsWith("must ")) return issue.message; // a schema's own words
  switch (issue.code) {
    case "invalid_type":
      return `must be ${typeText(issue.expected)}`;
    case "too_small":
      return `must ${boundText(issue.origin, `${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`)}`;
    case "too_big":
      return `must ${boundText(issue.origin, `${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`)}`;
    case "invalid_value":
      return `must be ${issue.values.length === 1 ? "" : "one of "}${
        issue.values.map((value) => JSON.stringify(value)).join(", ")
      }`;
    default:
      return issue.message;
  }
}

function typeText(expected: string): string {
  if (expected === "int") return "an integer";
  if (expected === "tuple" || expected === "array") return "an array";
  if (expected === "record" || expected === "object") return "an object";
  return `a ${expected}`;
}

function boundText(origin: string, bound: string): string {
  if (origin === "string") return `have ${bound} characters`;
  if (origin === "array") return `have ${bound} items`;
  return `be ${bound}`;
}

function pathText(place: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) => text + (typeof part === "number" ? `[${part}]` : `.${String(part)}`),
    place,
  );
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, part) => (value as Record<PropertyKey, unknown> | null | undefined)?.[part],
    input,
  );
}

/** A value as JSON where it is short and flat; nothing here follows a body's nesting, which may be very deep. */
function describe(value: unknown): string {
  const flat = !Array.isArray(value) || value.every((item) => typeof item !== "object" || item === null);
  const text = flat ? flatText(value) : undefined;
  if (text !== undefined && text.length <= LONGEST_ECHO) return text;
  if (typeof value === "string") return `a string of ${value.length} characters`;
  return Array.isArray(value) ? `an array of ${value.length} items` : "an object";
}

function flatText(value: unknown): string | undefined {
  if (typeof value === "string" || Array.isArray(value)) return JSON.stringify(value);
  if (typeof value === "object" && value !== null) return Object.keys(value).length === 0 ? "{}" : undefined;
  return String(value); // JSON has no text for the infinity that 1e999 is read as
}
