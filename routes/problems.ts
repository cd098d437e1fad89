/**
 * The closed set of problems that an answer can name. `/docs` explains each, and `/openapi.json` lists them by status.
 *
 * @module
 */

/** One kind of problem. */
export interface ProblemKind {
  readonly status: 400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 422 | 429 | 500 | 503;
  readonly title: string;
  /** What it means, and what to do. */
  readonly meaning: string;
}

/** Every kind by the last part of its `type`. */
export const PROBLEMS = {
  "malformed": { status: 400, title: "Malformed request", meaning: "The body isn't JSON. Nothing was changed." },
  "unauthorized": {
    status: 401,
    title: "Key required",
    meaning:
      "Send `Authorization: Bearer KEY`. Answering and reading take TUCKERD_API_KEY or TUCKERD_ADMIN_KEY, changing takes " +
      "TUCKERD_ADMIN_KEY.",
  },
  "forbidden": {
    status: 403,
    title: "Not allowed",
    meaning:
      "The key given isn't the administration key, the server listens beyond this machine without one, or another web " +
      "site sent the request.",
  },
  "not-found": {
    status: 404,
    title: "Not found",
    meaning: "No such route, model, job or generation. GET /v1/generations lists the generations held.",
  },
  "method-not-allowed": {
    status: 405,
    title: "Method not allowed",
    meaning: "The `Allow` header lists the methods of the route.",
  },
  "conflict": {
    status: 409,
    title: "Conflict",
    meaning: "Another compression job is under way. Wait for it, or cancel it by DELETE /v1/compression/jobs/{id}.",
  },
  "cancelled": { status: 409, title: "Cancelled", meaning: "The job that the request waited for was cancelled." },
  "too-large": {
    status: 413,
    title: "Body too large",
    meaning: "The body exceeds the limit that the text names. The server's TUCKERD_MAX_BODY sets it.",
  },
  "unsupported-media-type": {
    status: 415,
    title: "Unsupported media type",
    meaning: "Send `Content-Type: application/json`.",
  },
  "invalid": {
    status: 422,
    title: "Invalid request",
    meaning: "The request is well-formed but breaks a rule; `errors` names the fields. Nothing was changed.",
  },
  "bad-model": { status: 422, title: "Unreadable model", meaning: "A file of the model can't be understood." },
  "unsupported": {
    status: 422,
    title: "Unsupported model",
    meaning: "The model is understood, but nothing in it can be compressed so.",
  },
  "overloaded": {
    status: 429,
    title: "Too many requests",
    meaning: "The queue is full. Try again after the seconds in `Retry-After`; TUCKERD_QUEUE sets its length.",
  },
  "failed": {
    status: 500,
    title: "Server error",
    meaning: "The server failed; its log says more. The serving generation goes on.",
  },
  "unavailable": {
    status: 503,
    title: "Not ready",
    meaning: "The model is still loading, or the server is stopping; `state` and `progress` say how far it is.",
  },
} as const satisfies Record<string, ProblemKind>;

/** Name of a kind of problem. */
export type ProblemName = keyof typeof PROBLEMS;
