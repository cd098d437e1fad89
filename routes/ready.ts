/**
 * Holds routes back until the model serves.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { Readiness, Services } from "../src/serve/services.ts";
import { HttpProblem } from "./errors.ts";

/** Answers 503 with `state` and `progress` until the server is ready. */
export function requireReady(services: Services): MiddlewareHandler {
  return async (_c, next) => {
    const readiness = services.readiness();
    if (readiness.state !== "ready") throw notReady(readiness);
    await next();
  };
}

/** The 503 of a server that isn't ready. */
export function notReady(readiness: Readiness): HttpProblem {
  const { state, progress, reason } = readiness;
  const percent = Math.floor(progress * 100);
  const detail = state === "failed"
    ? `The model could not be served: ${reason ?? "its log says why"}`
    : state === "stopping"
    ? "The server is stopping"
    : `The model isn't ready: ${state}, ${percent}% done; try again in a second`;
  return new HttpProblem("unavailable", detail, {
    headers: { "retry-after": state === "failed" ? "30" : "1" },
    extensions: { state, progress, ...(reason === undefined ? {} : { reason }) },
  });
}
