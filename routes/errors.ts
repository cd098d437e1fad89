/**
 * Maps everything that can go wrong to one answer: `TuckerdError` by its kind, `HttpProblem` from the routes themselves, and
 * Hono's own exceptions. Whatever else is thrown is a bug: it is answered 500 without details, and logged.
 *
 * @module
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { z } from "@hono/zod-openapi";
import { type ErrorKind, TuckerdError } from "../src/errors.ts";
import { log } from "../src/log.ts";
import { type ProblemName, PROBLEMS } from "./problems.ts";
import type { Problem } from "./schemas/problem.ts";

/** Seconds after which a client may try again where the error doesn't say. */
const RETRY_AFTER_SECONDS = 1;

/** A problem of the HTTP layer itself: the body, the method, the keys. */
export class HttpProblem extends Error {
  override readonly name = "HttpProblem";
  readonly problem: ProblemName;
  readonly headers: Readonly<Record<string, string>>;
  /** Members that the answer carries beside the usual ones. */
  readonly extensions: Readonly<Record<string, unknown>>;

  constructor(
    problem: ProblemName,
    detail: string,
    options: { headers?: Record<string, string>; extensions?: Record<string, unknown> } = {},
  ) {
    super(detail);
    this.problem = problem;
    this.headers = options.headers ?? {};
    this.extensions = options.extensions ?? {};
  }
}

const problemOfKind: Readonly<Record<ErrorKind, ProblemName>> = {
  "invalid": "invalid",
  "not-found": "not-found",
  "bad-model": "bad-model",
  "unsupported": "unsupported",
  "conflict": "conflict",
  "unauthorized": "unauthorized",
  "forbidden": "forbidden",
  "overloaded": "overloaded",
  "unavailable": "unavailable",
  "cancelled": "cancelled",
  "failed": "failed",
};

const problemOfStatus: Readonly<Record<number, ProblemName>> = {
  400: "malformed",
  413: "too-large",
  415: "unsupported-media-type",
};

/** Turns anything thrown into a problem. */
export function problemOf(error: unknown): HttpProblem {
  if (error instanceof HttpProblem) return error;
  if (error instanceof TuckerdError) {
    const { retryAfterSeconds, ...extensions } = error.fields;
    const problem = problemOfKind[error.kind];
    const wait = typeof retryAfterSeconds === "number"
      ? Math.max(1, Math.ceil(retryAfterSeconds))
      : RETRY_AFTER_SECONDS;
    const retries = problem === "overloaded" || problem === "unavailable";
    return new HttpProblem(problem, error.message, {
      extensions,
      headers: retries ? { "retry-after": String(wait) } : {},
    });
  }
  if (error instanceof HTTPException) {
    const problem = problemOfStatus[error.status];
    if (problem !== undefined) return new HttpProblem(problem, error.message);
  }
  return new HttpProblem(
    "failed",
    "The server failed at this request; its log names the place. The serving generation goes on",
  );
}

/** The answer that tells a problem. */
export function problemResponse(c: Context, problem: HttpProblem): Response {
  const { status, title } = PROBLEMS[problem.problem];
  const body: z.infer<typeof Problem> = {
    ...problem.extensions,
    type: `/docs#problem-${problem.problem}`,
    title,
    status,
    detail: problem.message,
    error: problem.message,
    instance: new URL(c.req.url).pathname,
  };
  return c.body(JSON.stringify(body), status, { ...problem.headers, "content-type": "application/problem+json" });
}

/** Hono's error handler. */
export function onError(error: unknown, c: Context): Response {
  const problem = problemOf(error);
  if (PROBLEMS[problem.problem].status === 500) logFailure(error, c);
  return problemResponse(c, problem);
}

/** An error for the log: only the program's own errors with their message, since a foreign one may quote what a user wrote. */
export function logText(error: unknown): string {
  if (error instanceof TuckerdError) return `${error.kind}: ${error.message}`;
  return error instanceof Error ? error.name : typeof error;
}

function logFailure(error: unknown, c: Context): void {
  const frames = error instanceof Error ? (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)) : [];
  log(0, [`${c.req.method} request failed: ${logText(error)}`, ...frames].join("\n"));
}
