/**
 * `/v1/compression/jobs/{id}`: state, events and cancelling.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Services } from "../src/serve/services.ts";
import { ADMIN_KEY, INFERENCE_KEY, json, problems } from "./documentation.ts";
import { EVENT_STREAM_HEADERS, FINAL_EVENT_ID, jobEventStream } from "./job_events.ts";
import { Job } from "./schemas/compression.ts";
import type { RouteTools } from "./tools.ts";

const params = z.object({
  id: z.string().min(1).max(200).openapi({ description: "As `POST /v1/compression` gave it.", example: "7" }),
});

/** Registers the job routes. */
export function jobRoutes(app: OpenAPIHono, services: Services, tools: RouteTools): void {
  const { compression } = services;
  const tags = ["Compression"];
  const reading = { tags, security: INFERENCE_KEY, middleware: [tools.guards.inference] };

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/compression/jobs/{id}",
      ...reading,
      summary: "State and progress of a job",
      request: { params },
      responses: { 200: json(Job, "The job."), ...problems("unauthorized", "not-found", "invalid") },
    }),
    (c) => c.json(compression.job(c.req.valid("param").id), 200),
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/compression/jobs/{id}/events",
      ...reading,
      summary: "Follow a job",
      description:
        "Server-sent events: `state` with the whole job, at once and at every change, and `layer` for each layer that is " +
        "done. The stream ends when the job is final.",
      request: {
        params,
        headers: z.object({
          "last-event-id": z.string().max(200).optional().openapi({
            description:
              "Sent by EventSource when it connects again; after the final event the answer is 204, which ends that.",
          }),
        }),
      },
      responses: {
        200: {
          description: "The stream; comments keep the connection open.",
          content: {
            "text/event-stream": {
              schema: z.string().openapi({
                example:
                  'event: layer\ndata: {"layer":0,"name":"bert.encoder.layer.0.attention","relativeError":0.21}\nid: 2\n\n',
              }),
            },
          },
        },
        204: { description: "The client has the final event already." },
        ...problems("unauthorized", "not-found", "invalid"),
      },
    }),
    (c) => {
      const { id } = c.req.valid("param");
      const lastEventId = c.req.valid("header")["last-event-id"];
      compression.job(id); // throws where there is none, before the stream's headers are sent
      if (lastEventId === FINAL_EVENT_ID) return c.body(null, 204);
      // Hono answers HEAD by GET and drops the body, which would leave a stream that nobody reads.
      if (c.req.method === "HEAD") return c.body(null, 200, EVENT_STREAM_HEADERS);
      return jobEventStream({
        id,
        compression,

        lastEventId,
        heartbeatSeconds: tools.heartbeatSeconds,
      });
    },
  );

  app.openapi(
    createRoute({
      method: "delete",
      path: "/v1/compression/jobs/{id}",
      tags,
      security: ADMIN_KEY,
      middleware: [tools.guards.administration],
      summary: "Cancel a job",
      description: "The serving generation stays. A job that is final already is answered as it is.",
      request: { params },
      responses: {
        200: json(Job, "The job in its final state."),
        ...problems("unauthorized", "forbidden", "not-found", "invalid"),
      },
    }),
    async (c) => c.json(await compression.cancel(c.req.valid("param").id), 200),
  );
}
