/**
 * `/v1/compression`: the report, other ranks, what they would cost, and singular values.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { TuckerdError } from "../src/errors.ts";
import type { CompressionReport } from "../src/compress/artifact.ts";
import type { Job, Services } from "../src/serve/services.ts";
import {
  ADMIN_KEY,
  BODY_PROBLEMS,
  GENERATION_HEADER,
  generationRequest,
  INFERENCE_KEY,
  json,
  problems,
} from "./documentation.ts";
import { chooseGeneration } from "./generation.ts";
import {
  CompressionPreview,
  CompressionRequest,
  CompressionSpectrum,
  Job as JobSchema,
} from "./schemas/compression.ts";
import { exact } from "./schemas/exact.ts";
import { Report } from "./schemas/report.ts";
import type { RouteTools } from "./tools.ts";

const body = { required: true, content: { "application/json": { schema: CompressionRequest } } } as const;

/** Registers the compression routes, jobs apart. */
export function compressionRoutes(app: OpenAPIHono, services: Services, tools: RouteTools): void {
  const { compression } = services;
  const tags = ["Compression"];
  const reading = { tags, security: INFERENCE_KEY, middleware: [tools.guards.inference, tools.ready] };

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/compression",
      ...reading,
      summary: "The report of a generation",
      description:
        "Ranks, sizes and errors by layer, of the generation that serves or of the one that the header picks.",
      request: { headers: generationRequest },
      responses: {
        200: json(Report, "The report."),
        ...problems("unauthorized", "not-found", "invalid", "unavailable"),
      },
    }),
    (c) => {
      const report = compression.report(chooseGeneration(c.req.valid("header")[GENERATION_HEADER]).generation);
      c.header(GENERATION_HEADER, String(report.generation));
      return c.json(report, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/compression",
      tags,
      security: ADMIN_KEY,
      middleware: [tools.guards.administration, tools.jsonBody, tools.ready],
      summary: "Re-run Tucker with new ranks",
      description:
        "Starts a job, one at a time. Requests in flight finish on the generation that they began with, and a job that " +
        "fails leaves the old one serving.",
      request: {
        body,
        query: z.strictObject({
          wait: z.enum(["true", "false"]).optional().openapi({
            description: "Whether to answer only when the job is done.",
          }),
        }),
      },
      responses: {
        200: json(Report, "With `wait=true`: done, the report of the new generation."),
        202: json(JobSchema, "The job is under way.", {
          location: { description: "Path of the job.", schema: { type: "string" }, example: "/v1/compression/jobs/7" },
        }),
        ...problems(
          ...BODY_PROBLEMS,
          "unauthorized",
          "forbidden",
          "conflict",
          "cancelled",
          "bad-model",
          "unsupported",
          "unavailable",
        ),
      },
    }),
    async (c) => {
      const job = await compression.start(exact(c.req.valid("json")));
      c.header("location", `/v1/compression/jobs/${job.id}`);
      if (c.req.valid("query").wait !== "true") return c.json(job, 202);
      const report = reportOf(await compression.finished(job.id));
      c.header(GENERATION_HEADER, String(report.generation));
      return c.json(report, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/compression/preview",
      ...reading,
      middleware: [tools.guards.inference, tools.jsonBody, tools.ready],
      summary: "What given ranks would cost and save",
      description: "Takes what `POST /v1/compression` takes, and changes nothing.",
      request: { body },
      responses: {
        200: json(CompressionPreview, "Sizes and errors by layer."),
        ...problems(...BODY_PROBLEMS, "unauthorized", "forbidden", "unsupported", "unavailable"),
      },
    }),
    async (c) => c.json(await compression.preview(exact(c.req.valid("json"))), 200),
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/compression/spectrum",
      ...reading,
      summary: "Singular values of each mode of each layer",
      description: "They tell where ranks matter: a steep fall means that few suffice.",
      responses: {
        200: json(CompressionSpectrum, "Singular values, descending."),
        ...problems("unauthorized", "unsupported", "unavailable"),
      },
    }),
    async (c) => c.json(await compression.spectrum(), 200),
  );
}

/** The report of a job that is final; throws what it failed with. */
function reportOf(job: Job): CompressionReport {
  if (job.report !== undefined) return job.report;
  const { kind, detail } = job.error ??
    { kind: "failed", detail: `Job ${job.id} ended as ${job.state}, without a reason` };
  throw new TuckerdError(kind, detail);
}
