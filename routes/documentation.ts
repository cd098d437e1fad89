/**
 * Short forms for what `/openapi.json` says of answers.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { type ProblemName, PROBLEMS } from "./problems.ts";
import { Problem } from "./schemas/problem.ts";

/** Tags of the routes, in the order of `/docs`. */
export const TAGS = [
  { name: "Answering", description: "Questions about a context, on any generation that is held." },
  {
    name: "Compression",
    description: "What was compressed and how well; other ranks, tried or applied while the server serves.",
  },
  { name: "Generations", description: "Earlier rank settings, and the way back to them." },
  { name: "Operation", description: "Health, metrics and this description." },
] as const;

/** Header of every answer once a generation serves. */
export const GENERATION_HEADER = "x-tuckerd-generation";

const generationHeader = {
  [GENERATION_HEADER]: {
    description: "The generation that gave this answer.",
    schema: { type: "integer" as const, minimum: 0 },
    example: 3,
  },
};

/** A JSON answer. */
export interface JsonAnswer<S extends z.ZodType> {
  description: string;
  headers: Record<
    string,
    { description: string; schema: { type: "integer" | "string"; minimum?: number }; example?: number | string }
  >;
  content: { "application/json": { schema: S } };
}

/** A JSON answer of a schema, with the generation header. */
export function json<S extends z.ZodType>(
  schema: S,
  description: string,
  headers: JsonAnswer<S>["headers"] = {},
): JsonAnswer<S> {
  return { description, headers: { ...generationHeader, ...headers }, content: { "application/json": { schema } } };
}

type StatusOf<N extends ProblemName> = (typeof PROBLEMS)[N]["status"];

/** An answer that tells a problem. */
export interface ProblemAnswer {
  description: string;
  headers?: Record<string, { description: string; schema: { type: "integer" | "string" } }>;
  content: { "application/problem+json": { schema: typeof Problem } };
}

const problemHeaders: Partial<Record<ProblemName, ProblemAnswer["headers"]>> = {
  "unauthorized": { "www-authenticate": { description: "`Bearer`, RFC 6750.", schema: { type: "string" } } },
  "method-not-allowed": { "allow": { description: "Methods of the route.", schema: { type: "string" } } },
  "overloaded": { "retry-after": { description: "Seconds.", schema: { type: "integer" } } },
  "unavailable": { "retry-after": { description: "Seconds.", schema: { type: "integer" } } },
};

/** The error answers of a route, by status; problems that share a status share an answer. */
export function problems<N extends ProblemName = never>(...names: N[]): Record<StatusOf<N | "failed">, ProblemAnswer> {
  const answers: Partial<Record<number, ProblemAnswer>> = {};
  for (const name of [...names, "failed"] as const) {
    const { status, title, meaning } = PROBLEMS[name];
    const headers = problemHeaders[name];
    const known = answers[status];
    answers[status] = {
      description: `${known === undefined ? "" : `${known.description} `}${title}: ${meaning}`,
      ...(headers === undefined ? {} : { headers }),
      content: { "application/problem+json": { schema: Problem } },
    };
  }
  return answers as Record<StatusOf<N | "failed">, ProblemAnswer>;
}

/** Problems of every route that reads a JSON body. */
export const BODY_PROBLEMS = ["malformed", "too-large", "unsupported-media-type", "invalid"] as const;

/** `security` of routes behind the inference guard; the empty entry says that a server may be open. */
export const INFERENCE_KEY: Record<string, string[]>[] = [{ apiKey: [] }, { adminKey: [] }, {}];
/** `security` of routes behind the administration guard. */
export const ADMIN_KEY: Record<string, string[]>[] = [{ adminKey: [] }, {}];

/** The request header that picks a generation. */
export const generationRequest = z.object({
  [GENERATION_HEADER]: z.string().regex(/^\d{1,9}$/, "must be a generation number").optional().openapi({
    description: "A generation that is still held; the one that serves now where it is left out.",
    example: "3",
  }),
});
