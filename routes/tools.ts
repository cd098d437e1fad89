/**
 * What the routes are given: their settings, and the middleware that several of them share.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { AuthOptions, Guards } from "./auth.ts";

/** Settings of the routes. */
export interface AppOptions extends AuthOptions {
  /** Largest body that is read, in bytes. */
  readonly maxBodyBytes?: number;
  /** Pause between the comments that keep event streams open. */
  readonly heartbeatSeconds?: number;
}

/** What routes are put together from. */
export interface RouteTools {
  readonly guards: Guards;
  readonly ready: MiddlewareHandler;
  readonly jsonBody: MiddlewareHandler;
  readonly heartbeatSeconds: number;
}
