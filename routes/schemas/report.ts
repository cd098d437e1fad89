/**
 * The report of a compression, as `tuckerd.json` holds it too.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { ALGORITHMS } from "../../src/config.ts";
import { Layout, Mode, Ranks } from "./ranks.ts";

const beforeAfter = z.object({ before: z.number(), after: z.number() });

const matrixRank = z.union([z.int(), z.null()]);

/** Ranks of truncated matrices of attention. */
export const MatrixRanks = z.object({ q: matrixRank, k: matrixRank, v: matrixRank, o: matrixRank }).openapi({
  description: "Mode laser: the rank of each truncated matrix, null for one that was left as it is.",
});

/** Truncated matrices of a layer's feed-forward network. */
export const FeedForward = z.array(z.object({
  name: z.string().openapi({ description: "fc_in, fc_up or fc_out." }),
  rank: z.int(),
  parameters: z.number(),
  compressedParameters: z.number(),
  relativeError: z.number(),
  execution: z.enum(["factored", "dense"]).openapi({
    description: "As two matrices, or as one where two would be larger.",
  }),
})).readonly().openapi({ description: "Matrices of the layer's feed-forward network that were truncated." });

const cachePart = z.object({
  kind: z.enum(["full", "per-head", "latent"]).openapi({
    description: "The model's own numbers, r2 numbers per head, or the latent z, from which those are made.",
  }),
  heads: z.int(),
  size: z.int().openapi({ description: "0 where the other part holds everything." }),
  rotation: z.int().optional().openapi({
    description:
      "How many of those are cosines and sines of the position, kept here for all layers whose keys are rotated alike.",
  }),
});

/** What a layer of a decoder keeps for later tokens. */
export const CacheLayout = z.object({ key: cachePart, value: cachePart }).openapi({
  description:
    "Keys and values for later tokens, [batch, heads, positions, size]; absent where the graph has no cache.",
});

const LayerReport = z.object({
  layer: z.int(),
  name: z.string(),
  mode: Mode,
  ranks: z.union([Ranks, z.null()]).openapi({ description: "null where the layer's attention has none." }),
  matrixRanks: MatrixRanks.optional(),
  parameters: z.number(),
  compressedParameters: z.number(),
  compressionRatio: z.number(),
  relativeError: z.number().openapi({ description: "‖W − Ŵ‖F / ‖W‖F of the layer's tensor." }),
  matrixErrors: z.object({ q: z.number(), k: z.number(), v: z.number(), o: z.number() }),
  feedForward: FeedForward.optional(),
  cache: CacheLayout.optional(),
  seconds: z.number(),
}).openapi("LayerReport");

/** The report of one compression. */
export const Report = z.object({
  generation: z.int(),
  model: z.string(),
  architecture: z.string(),
  mode: Mode,
  algorithm: z.enum(ALGORITHMS).openapi({ description: "How 4-D Tucker factors were found." }),
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
    feedForward: z.object({
      parameters: z.number(),
      compressedParameters: z.number(),
      compressionRatio: z.number(),
    }).optional().openapi({
      description:
        "All feed-forward networks together; absent where none was found. The parameters above are attention's.",
    }),
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
    algorithm: "hooi",
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
