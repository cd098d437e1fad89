/**
 * Health and `/info`: open to everyone, and answered from the moment the port is open.
 *
 * @module
 */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import type { z } from "@hono/zod-openapi";
import type { Services } from "../src/serve/services.ts";
import type { AppOptions } from "./tools.ts";
import { json, problems } from "./documentation.ts";
import { notReady } from "./ready.ts";
import { Health, Info, Live, Ready } from "./schemas/status.ts";

/** Registers the operation routes. */
export function healthRoutes(
  app: OpenAPIHono,
  services: Services,
  options: AppOptions & { maxBodyBytes: number },
): void {
  const tags = ["Operation"];
  const generation = (): { generation?: number } => {
    const active = services.compression.generations().find((one) => one.active);
    return active === undefined ? {} : { generation: active.generation };
  };

  app.openapi(
    createRoute({
      method: "get",
      path: "/health/live",
      tags,
      summary: "Whether the process answers",
      responses: { 200: json(Live, "At once, in every state."), ...problems() },
    }),
    (c) => c.json({ status: "live" as const }, 200),
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/health/ready",
      tags,
      summary: "Whether the model serves",
      responses: { 200: json(Ready, "It does."), ...problems("unavailable") },
    }),
    (c) => {
      const readiness = services.readiness();
      if (readiness.state !== "ready") throw notReady(readiness);
      return c.json({ state: readiness.state, progress: readiness.progress }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/health",
      tags,
      summary: "State, version and up-time",
      responses: { 200: json(Health, "The model serves."), ...problems("unavailable") },
    }),
    (c) => {
      const readiness = services.readiness();
      if (readiness.state !== "ready") throw notReady(readiness);
      const { state, progress } = readiness;
      const uptimeSeconds = (Date.now() - services.startedAt.getTime()) / 1000;
      return c.json({ state, progress, version: services.version, ...generation(), uptimeSeconds }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/info",
      tags,
      summary: "What runs here",
      responses: { 200: json(Info, "Server, model and keys."), ...problems() },
    }),
    (c) => {
      const { state } = services.readiness();
      const info: z.input<typeof Info> = {
        name: "tuckerd",
        version: services.version,
        startedAt: services.startedAt.toISOString(),
        state,
        ...(state === "ready" ? { model: services.model() } : {}),
        ...generation(),
        maxBodyBytes: options.maxBodyBytes,
        keys: {
          inference: options.apiKey !== undefined,
          administration: options.adminKey !== undefined ? "key" : options.loopback ? "open" : "closed",
        },
      };
      return c.json(info, 200);
    },
  );
}
