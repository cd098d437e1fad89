/**
 * Ranks, modes and layouts, by the names of TensorLLM (arXiv 2501.15674).
 *
 * @module
 */
import { z } from "@hono/zod-openapi";
import { integer } from "./integer.ts";
import { MODES } from "../../src/config.ts";

const rank = integer(1);

/** (r1, r2, r3). */
export const Ranks = z.tuple([rank, rank, rank]).readonly().openapi("Ranks", {
  description: "Ranks of the hidden, head-size and stack mode, each at most its dimension (d, h, 4).",
  example: [64, 16, 4],
});

/** How a layer, or a model, is decomposed. */
export const Mode = z.enum(MODES).openapi("Mode", { example: "4d-tucker" });

/** How the weights become a tensor. */
export const Layout = z.enum(["heads", "reference"]).openapi("Layout", {
  description: "By real attention heads, or as the paper's code views the weights.",
});
