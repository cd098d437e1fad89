/** Every mode through the HTTP routes: re-runs with matrices of attention and of the feed-forward networks, previews, refusals. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { createApp } from "../../routes/app.ts";
import { CompressionPreview } from "../../routes/schemas/compression.ts";
import { Report } from "../../routes/schemas/report.ts";
import { bertQaFolder } from "../support/bert_qa.ts";
import { serve } from "../support/served.ts";

const question = {
  question: "Where was Marta born?",
  context: "Marta was born in Osterby and moved to Varna in 1960.",
};

Deno.test("modes, matrices, rates and budgets over HTTP", async (test) => {
  await using server = await serve(bertQaFolder);
  const app = createApp(server, { loopback: true });
  const post = async (path: string, body: unknown): Promise<{ status: number; body: Record<string, unknown> }> => {
    const response = await app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  };
  const answer = async (): Promise<{ readonly text: unknown; readonly score: number }> => {
    const { status, body } = await post("/", { inputs: question });
    assertEquals(status, 200, JSON.stringify(body));
    return { text: body["answer"], score: Number(body["score"]) };
  };
  const original = await answer();

  const requests = [
    { mode: "laser", laser: { rate: 0, matrices: ["all"] } },
    { mode: "laser", laser: { rate: 7, matrices: ["ffn", "value"] } },
    { mode: "laser", energy: 0.7, budget: "global", laser: { matrices: ["all"] } },
    { mode: "3d-tucker", ranks: [16, 4, 1], matrices: ["key"] },
    { mode: "4d-tucker-laser", ranks: [16, 4, 3] },
    { mode: "4d-tucker-laser", compressionRatio: 3, laser: { rate: 8, matrices: ["fc_out"] }, layers: "1" },
    { mode: "auto", compressionRatio: 3 },
    { mode: "auto", compressionRatio: 3, budget: "global" },
    { mode: "3d-tucker", energy: 0.6, budget: "global" },
    { mode: "4d-tucker", algorithm: "hosvd", ranks: [16, 4, 3] },
    { mode: "4d-tucker", algorithm: "hosvd", compressionRatio: 3, balance: true },
  ];
  for (const request of requests) {
    await test.step(JSON.stringify(request), async () => {
      const previewed = await post("/v1/compression/preview", request);
      assertEquals(previewed.status, 200, JSON.stringify(previewed.body));
      const { status, body } = await post("/v1/compression?wait=true", request);
      assertEquals(status, 200, JSON.stringify(body));
      const [preview, report] = [CompressionPreview.parse(previewed.body), Report.parse(body)];
      assertEquals(report.mode, request.mode as typeof report.mode);
      assertEquals(preview.totals.compressedParameters, report.totals.compressedParameters);
      for (const [i, layer] of report.layers.entries()) {
        const before = preview.layers[i]!;
        assertEquals([before.mode, before.matrixRanks], [layer.mode, layer.matrixRanks]);
        // HOOI comes in under the truncated HOSVD, and mode laser gives the very error of its singular values.
        assert(layer.relativeError <= before.relativeError + 1e-4, `layer ${i}`);
        assertEquals(before.feedForward?.length, layer.feedForward?.length);
        for (const [k, matrix] of (layer.feedForward ?? []).entries()) {
          const { relativeError, ...sizes } = before.feedForward![k]!;
          assertEquals({ ...matrix, relativeError }, { ...sizes, relativeError });
          assert(Math.abs(matrix.relativeError - relativeError) <= 1e-4);
        }
      }
      const now = await answer();
      // At rate 0 every matrix keeps its full rank: as two matrices it would be larger, so it runs as one.
      if ("laser" in request && request.laser.rate === 0) {
        assertEquals(now.text, original.text);
        assert(Math.abs(now.score - original.score) <= 1e-5, `${now.score} and ${original.score}`);
        assert(report.layers.every(({ feedForward }) => feedForward!.every(({ execution }) => execution === "dense")));
        assertEquals(report.totals.weightBytes.after, report.totals.weightBytes.before);
      }
    });
  }

  await test.step("what a layer got is what was asked for", async () => {
    await post("/v1/compression?wait=true", requests[5]);
    const { layers, totals } = server.compression.report();
    assertEquals(layers.map(({ mode }) => mode), ["none", "4d-tucker-laser"]);
    assertEquals(layers.map(({ feedForward }) => feedForward?.map(({ name }) => name)), [undefined, ["fc_out"]]);
    assert(totals.feedForward!.compressionRatio > 1);
  });

  await test.step("requests that can't be met are 422 and change nothing", async () => {
    const { generation } = server.compression.report();
    const refused = [
      { mode: "laser", energy: 0.9, laser: { rate: 5 } },
      { mode: "laser", laser: { rate: 5, matrices: ["fc_up"] } },
      { mode: "laser", laser: { rate: 5, matrices: ["fc_middle"] } },
      { mode: "laser", laser: {} },
      { mode: "4d-tucker", ranks: [4, 4, 4], laser: { rate: 5 } },
      { mode: "3d-tucker", ranks: [4, 4, 1], matrices: ["fc_in"] },
      { mode: "3d-tucker", ranks: [4, 4, 1], algorithm: "hosvd" },
      { mode: "4d-tucker", ranks: [4, 4, 4], algorithm: "svd" },
    ];
    for (const request of refused) {
      const { status, body } = await post("/v1/compression", request);
      assertEquals(status, 422, JSON.stringify({ request, body }));
    }
    assertEquals(server.compression.report().generation, generation);
  });
});
