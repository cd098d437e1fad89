/**
 * `/openapi.json`: OpenAPI 3.1, made from the schemas that also check the requests.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { problems, TAGS } from "./documentation.ts";
import { PROBLEMS } from "./problems.ts";

type Document = ReturnType<OpenAPIHono["getOpenAPI31Document"]>;

const description =
  "Serves a transformer whose attention was compressed by a Tucker decomposition (TensorLLM, arXiv 2501.15674), " +
  "answers questions, and changes ranks while it serves. Every error is `application/problem+json` (RFC 9457) with a string " +
  "`error` beside.";

const documentSchema = z.custom<Document>().openapi("OpenApiDocument", {
  type: "object",
  required: ["openapi", "info", "paths"],
});

/** Registers `/openapi.json`. */
export function openApiRoute(app: OpenAPIHono, version: string): void {
  app.openAPIRegistry.registerComponent("securitySchemes", "apiKey", {
    type: "http",
    scheme: "bearer",
    description: "TUCKERD_API_KEY, where the server has one: answering and reading.",
  });
  app.openAPIRegistry.registerComponent("securitySchemes", "adminKey", {
    type: "http",
    scheme: "bearer",
    description: "TUCKERD_ADMIN_KEY: changing, and all else.",
  });
  let document: Document | undefined;
  app.openapi(
    createRoute({
      method: "get",
      path: "/openapi.json",
      tags: ["Operation"],
      summary: "This description",
      responses: {
        200: {
          description: "An OpenAPI 3.1 document.",
          content: { "application/json": { schema: documentSchema } },
        },
        ...problems(),
      },
    }),
    (c) => {
      document ??= app.getOpenAPI31Document({
        openapi: "3.1.0",
        info: { title: "tuckerd", version, description },
        servers: [{ url: "/" }],
        tags: [...TAGS],
        "x-problems": PROBLEMS,
      });
      return c.json(document, 200);
    },
  );
}
