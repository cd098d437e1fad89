/**
 * What the operation routes tell.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";

const State = z.enum(["starting", "loading", "compressing", "ready", "failed", "stopping"]).openapi("ServerState");

/** `GET /health/live`. */
export const Live = z.object({ status: z.literal("live") }).openapi("Live");

/** `GET /health/ready`, once it is. */
export const Ready = z.object({
  state: State,
  progress: z.number().min(0).max(1),
}).openapi("Ready", { example: { state: "ready", progress: 1 } });

/** `GET /health`. */
export const Health = z.object({
  state: State,
  progress: z.number().min(0).max(1),
  version: z.string(),
  generation: z.int().optional(),
  uptimeSeconds: z.number(),
}).openapi("Health", {
  example: { state: "ready", progress: 1, version: "0.1.0", generation: 3, uptimeSeconds: 86.2 },
});

/** `GET /info`. */
export const Info = z.object({
  name: z.literal("tuckerd"),
  version: z.string(),
  startedAt: z.iso.datetime(),
  state: State,
  model: z.object({
    id: z.string(),
    architecture: z.string(),
    task: z.enum(["question-answering", "text-generation"]),
    maxInputTokens: z.int(),
  }).optional().openapi({ description: "Absent until the model is loaded." }),
  generation: z.int().optional(),
  maxBodyBytes: z.int(),
  keys: z.object({
    inference: z.boolean().openapi({ description: "Whether answering needs a key." }),
    administration: z.enum(["key", "open", "closed"]).openapi({
      description: "Whether changing needs a key, is open to this machine, or is closed for want of a key.",
    }),
  }),
}).openapi("Info", {
  example: {
    name: "tuckerd",
    version: "0.1.0",
    startedAt: "2026-01-31T12:00:00.000Z",
    state: "ready",
    model: { id: "default", architecture: "bert", task: "question-answering", maxInputTokens: 512 },
    generation: 3,
    maxBodyBytes: 1048576,
    keys: { inference: false, administration: "open" },
  },
});
