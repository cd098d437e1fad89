/**
 * Composes the HTTP side: `createApp(services, options)` gives a Hono app, which a server or a test calls.
 *
 * @module
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import { DEFAULT_MAX_BODY_BYTES } from "../src/config.ts";
import type { Services } from "../src/serve/services.ts";
import { createGuards } from "./auth.ts";
import { jsonBody } from "./body.ts";
import { compressionRoutes } from "./compression.ts";
import { onError } from "./errors.ts";
import { tellGeneration } from "./generation.ts";
import { generationRoutes } from "./generations.ts";
import { healthRoutes } from "./health.ts";
import { jobRoutes } from "./jobs.ts";
import { createNotFound } from "./methods.ts";
import { metricsRoute, RequestMetrics } from "./metrics.ts";
import { openApiRoute } from "./openapi.ts";
import { pageRoutes } from "./pages.ts";
import { questionAnsweringRoutes } from "./question_answering.ts";
import { requireReady } from "./ready.ts";
import { safeHeaders, sameOrigin } from "./same_origin.ts";
import type { AppOptions, RouteTools } from "./tools.ts";
import { refuseInvalid } from "./validation.ts";

/** Makes the app: every route of the contract over the given services. */
export function createApp(services: Services, options: AppOptions): OpenAPIHono {
  const app = new OpenAPIHono({ defaultHook: refuseInvalid });
  const maxBodyBytes = options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES;
  const requests = new RequestMetrics();
  const tools: RouteTools = {
    guards: createGuards(options),
    ready: requireReady(services),
    jsonBody: jsonBody(maxBodyBytes),
    heartbeatSeconds: options.heartbeatSeconds ?? 15,
  };
  app.onError(onError);
  app.use(requests.middleware());
  app.use(tellGeneration(services.compression));
  app.use(safeHeaders());
  app.use(sameOrigin());
  questionAnsweringRoutes(app, services, tools);
  compressionRoutes(app, services, tools);
  jobRoutes(app, services, tools);
  generationRoutes(app, services, tools);
  healthRoutes(app, services, { ...options, maxBodyBytes });
  metricsRoute(app, services, requests);
  pageRoutes(app);
  openApiRoute(app, services.version);
  app.notFound(createNotFound(app));
  return app;
}
