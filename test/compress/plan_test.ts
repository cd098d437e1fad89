/** From what is asked to what each layer gets. */
import { assertEquals, assertThrows } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { findFeedForward } from "../../src/attention/feed_forward/mod.ts";
import { type CompressionRequest, resolveOptions } from "../../src/compress/options.ts";
import { planLayers } from "../../src/compress/plan.ts";
import { TuckerdError } from "../../src/errors.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { oracleExports } from "../support/oracle.ts";

const model = await loadModel(oracleExports("bert")[0]!.path);
const plan = (request: CompressionRequest) =>
  planLayers(findAttention(model).blocks, findFeedForward(model), resolveOptions(request));

Deno.test("a layer with ranks of its own is compressed though it isn't among the chosen ones; one to be skipped isn't", () => {
  const plans = plan({
    ranks: [16, 4, 4],
    layers: "0-1",
    overrides: { "1": { skip: true }, "2": { ranks: [24, 6, 3] } },
  });
  assertEquals(plans.map(({ mode, target }) => [mode, target]), [
    ["4d-tucker", { kind: "ranks", ranks: [16, 4, 4] }],
    ["none", undefined],
    ["4d-tucker", { kind: "ranks", ranks: [24, 6, 3] }],
  ]);
});

Deno.test("modes that choose or truncate take no ranks for a layer, and say so", () => {
  const requests: readonly CompressionRequest[] = [
    { mode: "auto", energy: 0.9, overrides: { "1": { ranks: [16, 4, 4] } } },
    { mode: "laser", laser: { matrices: ["ffn"], rate: 8 }, overrides: { "1": { ranks: [16, 4, 4] } } },
  ];
  for (const request of requests) {
    const error = assertThrows(() => plan(request), TuckerdError, "ranks");
    assertEquals(error.kind, "invalid");
  }
});
