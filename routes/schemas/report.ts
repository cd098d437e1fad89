/**
 * The report of a compression, as `tuckerd.json` holds it too.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { Layout, Mode, Ranks } from "./ranks.ts";

const beforeAfter = z.object({ before: z.number(), after: z.number() });

const LayerReport = z.object({
  layer: z.int(),
  name: z.string(),
  mode: Mode,
  ranks: z.union([Ranks, z.null()]).openapi({ description: "null where the layer is as it was." }),
  parameters: z.number(),
  compressedParameters: z.number(),
  compressionRatio: z.number(),
  relativeError: z.number().openapi({ description: "‖W − Ŵ‖F / ‖W‖F of the layer's tensor." }),
  matrixErrors: z.object({ q: z.number(), k: z.number(), v: z.number(), o: z.number() }),
  seconds: z.number(),
}).openapi("LayerReport");

/** The report of one compression. */
export const Report = z.object({
  generation: z.int(),
  model: z.string(),
  architecture: z.string(),
  mode: Mode,
  layout: Layout,
  execution: z.enum(["factored", "dense"]),
  devices: z.object({
    tucker: z.object({ backend: z.enum(["webgpu", "cpu", "none"]), adapter: z.string() }),
    inference: z.object({ provider: z.string() }),
  }).openapi({ description: "What really ran." }),
  totals: z.object({
    attentionParameters: z.number(),
    compressedParameters: z.number(),
    compressionRatio: z.number(),
    weightBytes: beforeAfter,
    kvBytesPerToken: beforeAfter,
    seconds: z.number(),
  }),
  layers: z.array(LayerReport).readonly(),
  skipped: z.array(z.object({ node: z.string(), operator: z.string(), reason: z.string() })).readonly().openapi({
    description: "Attention operators that were left as they are, and why.",
  }),
}).openapi("CompressionReport", {
  example: {
    generation: 3,
    model: "default",
    architecture: "bert",
    mode: "4d-tucker",
    layout: "heads",
    execution: "factored",
    devices: { tucker: { backend: "cpu", adapter: "onnxruntime" }, inference: { provider: "cpu" } },
    totals: {
      attentionParameters: 147456,
      compressedParameters: 35584,
      compressionRatio: 4.14,
      weightBytes: { before: 589824, after: 142336 },
      kvBytesPerToken: { before: 0, after: 0 },
      seconds: 0.4,
    },
    layers: [{
      layer: 0,
      name: "bert.encoder.layer.0.attention",
      mode: "4d-tucker",
      ranks: [64, 16, 4],
      parameters: 147456,
      compressedParameters: 35584,
      compressionRatio: 4.14,
      relativeError: 0.21,
      matrixErrors: { q: 0.24, k: 0.25, v: 0.18, o: 0.2 },
      seconds: 0.1,
    }],
    skipped: [],
  },
});
