/**
 * Answers what no route takes: OPTIONS with the methods of the path, 405 with the same list, or 404.
 *
 * @module
 */
import type { Context, Hono } from "hono";
import { HttpProblem, problemResponse } from "./errors.ts";

/** Makes Hono's handler for requests that no route matched. */
export function createNotFound(app: Hono): (c: Context) => Response {
  const routes = app.routes.filter((route) => route.method !== "ALL")
    .map((route) => ({ method: route.method, pattern: patternOf(route.path) }));
  return (c) => {
    const methods = new Set(routes.filter((route) => route.pattern.test(c.req.path)).map((route) => route.method));
    if (methods.size === 0) {
      return problemResponse(c, new HttpProblem("not-found", "There is nothing at this path; /docs lists the routes"));
    }
    if (methods.has("GET")) methods.add("HEAD");
    const allow = [...methods.add("OPTIONS")].sort().join(", ");
    if (c.req.method === "OPTIONS") return c.body(null, 204, { allow });
    const detail = `This path takes ${allow}, got ${c.req.method}`;
    return problemResponse(c, new HttpProblem("method-not-allowed", detail, { headers: { allow } }));
  };
}

/** Hono's `/a/:b` as an expression; nothing else of its path syntax is used here. */
function patternOf(path: string): RegExp {
  const source = path.split("/").map((part) =>
    part.startsWith(":") ? "[^/]+" : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
  )
    .join("/");
  return new RegExp(`^${source}$`);
}
