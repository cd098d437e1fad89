/**
 * Keeps other web sites from using a visitor's browser against this server. No CORS headers are ever sent, so a browser lets
 * no other site read an answer; this refuses what it would still send.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import { HttpProblem } from "./errors.ts";

const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS"]);

/** Refuses requests of other origins that aren't safe by method: by `Sec-Fetch-Site`, else by `Origin` against the host. */
export function sameOrigin(): MiddlewareHandler {
  return async (c, next) => {
    if (
      !SAFE_METHODS.has(c.req.method) && isForeign(c.req.header("sec-fetch-site"), c.req.header("origin"), c.req.url)
    ) {
      throw new HttpProblem(
        "forbidden",
        "A page of another origin sent this request; only this server's own pages and programs may",
      );
    }
    await next();
  };
}

function isForeign(site: string | undefined, origin: string | undefined, url: string): boolean {
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  if (origin === undefined) return false; // not a browser
  return !URL.canParse(origin) || new URL(origin).host !== new URL(url).host;
}

/** Keeps browsers from guessing types, from telling where a visitor came from, and other sites from embedding answers. */
export function safeHeaders(): MiddlewareHandler {
  return async (c, next) => {
    await next();
    c.header("x-content-type-options", "nosniff");
    c.header("referrer-policy", "no-referrer");
    c.header("cross-origin-resource-policy", "same-origin");
  };
}
