/**
 * Requests for other ranks, and what the service says of them.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { ALGORITHMS, ATTENTION_NAMES, BUDGETS, LASER_NAMES, LAYERS_PATTERN, MODES } from "../../src/config.ts";
import { FeedForward, MatrixRanks, Report } from "./report.ts";
import { Layout, Mode, Ranks } from "./ranks.ts";

const energy = z.number().gt(0).max(1).openapi({
  description: "Share of each layer's squared norm to keep, 1 - relativeError²; the ranks follow.",
});
const compressionRatio = z.number().min(1).openapi({
  description: "Ratio of the attention weights' parameters, before to after; the ranks with the smallest error follow.",
});

const Override = z.strictObject({
  ranks: Ranks.optional(),
  skip: z.boolean().optional().openapi({ description: "Leaves the layer as it is." }),
}).refine((value) => (value.ranks === undefined) !== (value.skip === undefined), "must have either ranks or skip")
  .openapi("LayerOverride");

/** Body of `POST /v1/compression` and `POST /v1/compression/preview`. */
export const CompressionRequest = z.strictObject({
  ranks: Ranks.optional(),
  energy: energy.optional(),
  compressionRatio: compressionRatio.optional(),
  mode: z.enum(MODES).optional().openapi({ description: "Default: the mode that serves now." }),
  algorithm: z.enum(ALGORITHMS).optional().openapi({
    description:
      "How 4-D Tucker factors are found: by HOOI (lowest error, the default), or sliced from each layer's full HOSVD, " +
      "which is computed once and kept, so that other ranks take milliseconds.",
  }),
  layout: Layout.optional(),
  balance: z.boolean().optional().openapi({
    description: "Scales Q, K, V and O to equal norm before, and back after.",
  }),
  layers: z.string().regex(LAYERS_PATTERN, "must be all, or layer numbers and ranges such as 0,2-5").optional(),
  budget: z.enum(BUDGETS).optional().openapi({
    description:
      "What an energy or a ratio holds for: each layer, or all together, with the ranks where they help most.",
  }),
  matrices: z.array(z.enum(ATTENTION_NAMES)).min(1).readonly().optional().openapi({
    description: "What mode 3d-tucker decomposes; all four by default.",
  }),
  laser: z.strictObject({
    matrices: z.array(z.enum(LASER_NAMES)).min(1).readonly().optional().openapi({
      description:
        "By default attention in mode laser, and ffn in mode 4d-tucker-laser. In a gated feed-forward network " +
        "fc_in is the gate, fc_up what it is multiplied by.",
    }),
    rate: z.number().gte(0).lt(10).optional().openapi({
      description:
        "LASER's rate: an m×n matrix gets rank int(min(m, n) · (10 − rate) / 10). In mode laser it stands in the " +
        "place of an energy or a ratio; in 4d-tucker-laser it is for the feed-forward matrices, 7.5 by default.",
    }),
  }).refine((value) => value.matrices !== undefined || value.rate !== undefined, "must have matrices or a rate")
    .optional().openapi({ description: "Truncated SVD of chosen matrices, for the modes laser and 4d-tucker-laser." }),
  overrides: z.record(z.string().regex(/^\d+$/, "must be a layer number"), Override).optional().openapi({
    description: "Single layers by number: ranks of their own, or none.",
  }),
}).superRefine((value, context) => {
  const fault = targetFault(value);
  if (fault !== undefined) context.addIssue({ code: "custom", message: fault });
}).openapi("CompressionRequest", {
  description:
    "Exactly one of `ranks`, `energy` and `compressionRatio`; none of them for mode `none`, and none with `laser.rate` for mode `laser`.",
  example: { ranks: [64, 16, 4], overrides: { "3": { ranks: [96, 24, 4] }, "0": { skip: true } } },
});

interface Targets {
  readonly ranks?: unknown;
  readonly energy?: number | undefined;
  readonly compressionRatio?: number | undefined;
  readonly mode?: (typeof MODES)[number] | undefined;
  readonly laser?: { readonly rate?: number | undefined } | undefined;
}

/** The rule that the choice of ranks breaks, if any. */
function targetFault(request: Targets): string | undefined {
  const { mode } = request;
  const given = (["ranks", "energy", "compressionRatio"] as const).filter((name) => request[name] !== undefined);
  if (given.length > 1) return `must have one of ranks, energy and compressionRatio, got ${given.join(" and ")}`;
  if (mode === "none" && given.length > 0) return `must not have ${given[0]} with mode none`;
  if (mode === "auto" && request.ranks !== undefined) {
    return "must have energy or compressionRatio with mode auto, which chooses ranks itself";
  }
  const rated = mode === "laser" && request.laser?.rate !== undefined;
  if (rated && given.length > 0) return `must have either laser.rate or ${given[0]} with mode laser, not both`;
  const free = mode === "none" || rated;
  if (given.length === 0 && !free) return "must have one of ranks, energy and compressionRatio";
  return undefined;
}

/** What given ranks would cost and save. */
export const CompressionPreview = z.object({
  totals: z.object({ attentionParameters: z.number(), compressedParameters: z.number(), compressionRatio: z.number() }),
  layers: z.array(z.object({
    layer: z.int(),
    name: z.string(),
    mode: Mode,
    ranks: z.union([Ranks, z.null()]),
    matrixRanks: MatrixRanks.optional(),
    parameters: z.number(),
    compressedParameters: z.number(),
    compressionRatio: z.number(),
    relativeError: z.number().openapi({
      description:
        "Tucker: of the truncated HOSVD; what is applied comes in at or under it. Mode laser: the error itself.",
    }),
    feedForward: FeedForward.optional(),
  })).readonly(),
}).openapi("CompressionPreview", {
  example: {
    totals: { attentionParameters: 589824, compressedParameters: 142336, compressionRatio: 4.14 },
    layers: [{
      layer: 0,
      name: "bert.encoder.layer.0.attention",
      mode: "4d-tucker",
      ranks: [64, 16, 4],
      parameters: 147456,
      compressedParameters: 35584,
      compressionRatio: 4.14,
      relativeError: 0.21,
    }],
  },
});

const values = z.array(z.number()).readonly();

/** Singular values of each mode. */
export const CompressionSpectrum = z.object({
  layers: z.array(z.object({
    layer: z.int(),
    name: z.string(),
    shape: z.tuple([z.int(), z.int(), z.int(), z.int()]).readonly().openapi({ description: "[d, h, 4, H]" }),
    singularValues: z.object({ hidden: values, head: values, stack: values }).openapi({ description: "Descending." }),
  })).readonly(),
}).openapi("CompressionSpectrum", {
  example: {
    layers: [{
      layer: 0,
      name: "bert.encoder.layer.0.attention",
      shape: [4, 2, 4, 2],
      singularValues: { hidden: [3.1, 1.2, 0.4, 0.1], head: [3.2, 1.1], stack: [2.9, 1.4, 0.8, 0.5] },
    }],
  },
});

/** A compression job. */
export const Job = z.object({
  id: z.string(),
  state: z.enum(["queued", "running", "succeeded", "failed", "cancelled"]).openapi({
    description: "The last three are final.",
  }),
  request: CompressionRequest,
  progress: z.number().min(0).max(1),
  layers: z.object({ done: z.int(), total: z.int() }),
  createdAt: z.iso.datetime(),
  finishedAt: z.iso.datetime().optional(),
  generation: z.int().optional().openapi({ description: "Where it succeeded: the generation that it made." }),
  report: Report.optional(),
  error: z.object({ kind: z.string(), detail: z.string() }).optional().openapi({
    description: "Where it failed or was cancelled: why.",
  }),
}).openapi("Job", {
  example: {
    id: "7",
    state: "running",
    request: { ranks: [64, 16, 4] },
    progress: 0.5,
    layers: { done: 2, total: 4 },
    createdAt: "2026-01-31T12:00:00.000Z",
  },
});

/** A generation that is held. */
export const Generation = z.object({
  generation: z.int().min(0),
  active: z.boolean().openapi({ description: "Whether it serves requests that pick none." }),
  createdAt: z.iso.datetime(),
  mode: Mode,
  compressionRatio: z.number(),
  meanRelativeError: z.number(),
}).openapi("Generation", {
  example: {
    generation: 3,
    active: true,
    createdAt: "2026-01-31T12:00:00.000Z",
    mode: "4d-tucker",
    compressionRatio: 4.14,
    meanRelativeError: 0.21,
  },
});

/** The generations held, oldest first. */
export const Generations = z.object({ generations: z.array(Generation).readonly() }).openapi("Generations");
