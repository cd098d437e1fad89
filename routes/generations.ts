/**
 * `/v1/generations`: earlier rank settings, and back to one.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Services } from "../src/serve/services.ts";
import { ADMIN_KEY, INFERENCE_KEY, json, problems } from "./documentation.ts";
import { Generation, Generations } from "./schemas/compression.ts";
import type { RouteTools } from "./tools.ts";

/** Registers the generation routes. */
export function generationRoutes(app: OpenAPIHono, services: Services, tools: RouteTools): void {
  const { compression } = services;
  const tags = ["Generations"];

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/generations",
      tags,
      security: INFERENCE_KEY,
      middleware: [tools.guards.inference],
      summary: "The generations held",
      responses: { 200: json(Generations, "Oldest first; empty until one serves."), ...problems("unauthorized") },
    }),
    (c) => c.json({ generations: compression.generations() }, 200),
  );

  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/generations/{n}/activate",
      tags,
      security: ADMIN_KEY,
      middleware: [tools.guards.administration, tools.ready],
      summary: "Make a held generation the serving one",
      description: "Takes no body. Requests in flight finish on the generation that they began with.",
      request: {
        params: z.object({
          n: z.string().regex(/^\d{1,9}$/, "must be a generation number").openapi({ example: "2" }),
        }),
      },
      responses: {
        200: json(Generation, "The generation, serving."),
        ...problems("unauthorized", "forbidden", "not-found", "conflict", "invalid", "unavailable"),
      },
    }),
    async (c) => c.json(await compression.activate(Number(c.req.valid("param").n)), 200),
  );
}
