/**
 * The two pages, `/` and `/docs`, and their files: plain HTML, CSS and modules, imported as text so that nothing is fetched
 * from elsewhere and nothing is built.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { etag } from "hono/etag";
import { problems } from "./documentation.ts";
import { HttpProblem } from "./errors.ts";
import apiJs from "./page/api.js" with { type: "text" };
import askJs from "./page/ask.js" with { type: "text" };
import docsCss from "./page/docs.css" with { type: "text" };
import docsHtml from "./page/docs.html" with { type: "text" };
import docsJs from "./page/docs.js" with { type: "text" };
import domJs from "./page/dom.js" with { type: "text" };
import generationsJs from "./page/generations.js" with { type: "text" };
import iconSvg from "./page/icon.svg" with { type: "text" };
import indexHtml from "./page/index.html" with { type: "text" };
import jobsJs from "./page/jobs.js" with { type: "text" };
import layersJs from "./page/layers.js" with { type: "text" };
import mainJs from "./page/main.js" with { type: "text" };
import pageCss from "./page/page.css" with { type: "text" };
import schemaJs from "./page/schema.js" with { type: "text" };
import slidersJs from "./page/sliders.js" with { type: "text" };
import styleCss from "./page/style.css" with { type: "text" };
import tryJs from "./page/try.js" with { type: "text" };

const FILES: ReadonlyMap<string, string> = new Map([
  ["api.js", apiJs],
  ["ask.js", askJs],
  ["docs.css", docsCss],
  ["docs.js", docsJs],
  ["dom.js", domJs],
  ["generations.js", generationsJs],
  ["icon.svg", iconSvg],
  ["jobs.js", jobsJs],
  ["layers.js", layersJs],
  ["main.js", mainJs],
  ["page.css", pageCss],
  ["schema.js", schemaJs],
  ["sliders.js", slidersJs],
  ["style.css", styleCss],
  ["try.js", tryJs],
]);

const TYPES: Readonly<Record<string, string>> = { js: "text/javascript", css: "text/css", svg: "image/svg+xml" };

/** The pages run their own files only, talk to this server only, and can't be framed. */
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Registers the pages and their files. */
export function pageRoutes(app: OpenAPIHono): void {
  const tags = ["Operation"];
  const middleware: MiddlewareHandler[] = [pageHeaders(), etag()];
  for (
    const [path, summary, html] of [["/", "The page", indexHtml], [
      "/docs",
      "This description, to read and try",
      docsHtml,
    ]] as const
  ) {
    app.openapi(
      createRoute({
        method: "get",
        path,
        tags,
        summary,
        middleware,
        responses: { 200: { description: "HTML.", content: { "text/html": { schema: z.string() } } }, ...problems() },
      }),
      (c) => c.html(html, 200),
    );
  }
  app.openapi(
    createRoute({
      method: "get",
      path: "/assets/{file}",
      tags,
      summary: "Files of the pages",
      middleware,
      request: { params: z.object({ file: z.string().openapi({ example: "style.css" }) }) },
      responses: {
        200: {
          description: "The file.",
          content: {
            "text/css": { schema: z.string() },
            "text/javascript": { schema: z.string() },
            "image/svg+xml": { schema: z.string() },
          },
        },
        ...problems("not-found"),
      },
    }),
    (c) => {
      const { file } = c.req.valid("param");
      const text = FILES.get(file);
      if (text === undefined) throw new HttpProblem("not-found", `The pages have no file ${JSON.stringify(file)}`);
      return c.body(text, 200, { "content-type": `${TYPES[file.split(".").at(-1)!]}; charset=utf-8` });
    },
  );
}

function pageHeaders(): MiddlewareHandler {
  return async (c, next) => {
    await next();
    c.header("content-security-policy", CONTENT_SECURITY_POLICY);
    c.header("cache-control", "no-cache");
  };
}
