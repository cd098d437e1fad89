import { assertEquals, assertStringIncludes } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { fakeReport } from "../support/fake_model.ts";
import { serve } from "../support/http.ts";

Deno.test("the report is that of the serving generation, or of the one picked", async () => {
  const { send } = serve();
  const now = await send("GET", "/v1/compression");
  assertEquals(await now.json(), JSON.parse(JSON.stringify(fakeReport(1, [48, 12, 4]))));
  assertEquals(now.headers.get("x-tuckerd-generation"), "1");
  const earlier = await send("GET", "/v1/compression", { headers: { "x-tuckerd-generation": "0" } });
  assertEquals((await earlier.json()).generation, 0);
  assertEquals(earlier.headers.get("x-tuckerd-generation"), "0");
});

Deno.test("a re-run answers 202 with the job and where it is", async () => {
  const { send, services } = serve();
  const body = {
    ranks: [32, 8, 2],
    mode: "4d-tucker",
    algorithm: "hosvd",
    layout: "heads",
    balance: true,
    layers: "0,2-3",
    overrides: { "1": { ranks: [64, 16, 4] }, "2": { skip: true } },
  };
  const response = await send("POST", "/v1/compression", { body });
  assertEquals(response.status, 202);
  assertEquals(response.headers.get("location"), "/v1/compression/jobs/1");
  assertEquals(response.headers.get("x-tuckerd-generation"), "1");
  assertEquals((await response.json()).state, "running");
  assertEquals(services.started as unknown[], [body]);
  const job = await send("GET", "/v1/compression/jobs/1");
  assertEquals((await job.json()).request, body);
});

Deno.test("wait=true answers when the job is done, with the new generation's report", async () => {
  const { send, services } = serve();
  const { finished } = services.compression;
  services.compression.finished = (id) => {
    services.succeed(id);
    return finished(id);
  };
  const response = await send("POST", "/v1/compression?wait=true", { body: { ranks: [32, 8, 4] } });
  assertEquals(response.status, 200);
  assertEquals((await response.json()).generation, 2);
  assertEquals(response.headers.get("x-tuckerd-generation"), "2");
});

Deno.test("wait=true tells why a job failed, and the old generation serves", async () => {
  const { send, services } = serve();
  const { finished } = services.compression;
  const endings = [
    { kind: "unsupported", detail: "Nothing in this model can be compressed so", status: 422 },
    { kind: "failed", detail: "The decomposition process was killed by signal 9", status: 500 },
  ] as const;
  for (const { kind, detail, status } of endings) {
    services.compression.finished = (id) => {
      services.fail(id, { kind, detail });
      return finished(id);
    };
    const response = await send("POST", "/v1/compression?wait=true", { body: { ranks: [32, 8, 4] } });
    assertEquals(response.status, status);
    assertEquals((await response.json()).detail, detail);
    assertEquals(response.headers.get("x-tuckerd-generation"), "1");
  }
  services.compression.finished = (id) => services.compression.cancel(id);
  const cancelled = await send("POST", "/v1/compression?wait=true", { body: { ranks: [32, 8, 4] } });
  assertEquals(cancelled.status, 409);
  assertEquals((await cancelled.json()).type, "/docs#problem-cancelled");
});

Deno.test("a second re-run gets 409 until the first is done", async () => {
  const { send, services } = serve();
  assertEquals((await send("POST", "/v1/compression", { body: { ranks: [32, 8, 4] } })).status, 202);
  const second = await send("POST", "/v1/compression", { body: { ranks: [16, 8, 4] } });
  assertEquals(second.status, 409);
  assertStringIncludes((await second.json()).detail, "Job 1");
  services.succeed("1");
  assertEquals((await send("POST", "/v1/compression", { body: { ranks: [16, 8, 4] } })).status, 202);
});

Deno.test("bad requests are refused by field, rule and value, and start nothing", async (t) => {
  const target = "body must have one of ranks, energy and compressionRatio";
  const cases: [unknown, string][] = [
    [{ ranks: [0, 8, 4] }, "body.ranks[0] must be at least 1, got 0"],
    [{ ranks: [8, 1.5, 4] }, "body.ranks[1] must be an integer, got 1.5"],
    [{ ranks: [8, "8", 4] }, 'body.ranks[1] must be an integer, got "8"'],
    [{ ranks: [8, 8] }, "body.ranks must have at least 3 items, got [8,8]"],
    [{ ranks: [8, 8, 4, 6] }, "body.ranks must have at most 3 items, got [8,8,4,6]"],
    [{ ranks: 8 }, "body.ranks must be an array, got 8"],
    [{ ranks: [4096, 8, 4] }, "ranks[0] must be at most 192, got 4096"],
    [{ energy: 2 }, "body.energy must be at most 1, got 2"],
    [{ energy: 0 }, "body.energy must be more than 0, got 0"],
    ['{"energy": 1e999}', "body.energy must be a number, got Infinity"],
    [{ energy: null }, "body.energy must be a number, got null"],
    [{ compressionRatio: 0.5 }, "body.compressionRatio must be at least 1, got 0.5"],
    [{}, target],
    [{ mode: "4d-tucker" }, target],
    [{ mode: "laser" }, target],
    [{ energy: 0.9, compressionRatio: 4 }, `${target}, got energy and compressionRatio`],
    [{ mode: "none", energy: 0.9 }, "body must not have energy with mode none"],
    [
      { mode: "auto", ranks: [8, 8, 4] },
      "body must have energy or compressionRatio with mode auto, which chooses ranks itself",
    ],
    [
      { ranks: [8, 8, 4], layers: "5-" },
      'body.layers must be all, or layer numbers and ranges such as 0,2-5, got "5-"',
    ],
    [{ ranks: [8, 8, 4], overrides: { "3": {} } }, "body.overrides.3 must have either ranks or skip"],
    [{ ranks: [8, 8, 4], rank: 3 }, "body.rank is not a known parameter"],
    [
      { mode: "5d", ratio: 4 },
      'body.mode must be one of "4d-tucker", "3d-tucker", "laser", "4d-tucker-laser", "auto", "none", got "5d"; body.ratio is not a known parameter',
    ],
  ];
  for (const [body, detail] of cases) {
    await t.step(detail, async () => {
      const { send, services } = serve();
      const response = await send("POST", "/v1/compression", { body });
      assertEquals(response.status, 422);
      assertEquals((await response.json()).detail, detail);
      assertEquals(services.started, []);
      assertEquals(services.active, 1);
    });
  }
});

Deno.test("modes that need no target take none", async () => {
  for (
    const body of [{ mode: "none" }, { mode: "laser", laser: { matrices: ["fc_in"], rate: 9 } }, {
      mode: "auto",
      energy: 0.9,
    }]
  ) {
    assertEquals((await serve().send("POST", "/v1/compression", { body })).status, 202);
  }
});

Deno.test("wait takes true or false", async () => {
  assertEquals((await serve().send("POST", "/v1/compression?wait=false", { body: { ranks: [8, 8, 4] } })).status, 202);
  const response = await serve().send("POST", "/v1/compression?wait=yes", { body: { ranks: [8, 8, 4] } });
  assertEquals((await response.json()).detail, 'query.wait must be one of "true", "false", got "yes"');
  const { send, services } = serve();
  const mistyped = await send("POST", "/v1/compression?wiat=true", { body: { ranks: [8, 8, 4] } });
  assertEquals((await mistyped.json()).detail, "query.wiat is not a known parameter");
  assertEquals(services.started, []);
});

Deno.test("a preview changes nothing, and knows single layers", async () => {
  const { send, services } = serve();
  const body = { ranks: [32, 8, 4], overrides: { "0": { skip: true }, "2": { ranks: [64, 16, 4] } } };
  const response = await send("POST", "/v1/compression/preview", { body });
  const preview = await response.json();
  assertEquals(preview.layers.map((layer: { ranks: unknown }) => layer.ranks), [null, [32, 8, 4], [64, 16, 4], [
    32,
    8,
    4,
  ]]);
  assertEquals([services.started.length, services.jobs.size, services.active], [0, 0, 1]);
});

Deno.test("the spectrum has every mode of every layer, whole", async () => {
  const response = await serve().send("GET", "/v1/compression/spectrum");
  const { layers } = await response.json();
  assertEquals(layers.length, 4);
  for (const { shape, singularValues } of layers) {
    assertEquals(shape, [192, 32, 4, 6]);
    assertEquals([singularValues.hidden.length, singularValues.head.length, singularValues.stack.length], [192, 32, 4]);
  }
});

Deno.test("what a service refuses keeps its text and its fields", async () => {
  const { send, services } = serve();
  services.failure = new TuckerdError("invalid", "ranks[1] must be at most 32 (layer 2), got 33", {
    fields: { layer: 2, limit: 32 },
  });
  const response = await send("POST", "/v1/compression", { body: { ranks: [8, 33, 4] } });
  assertEquals(response.status, 422);
  const problem = await response.json();
  assertEquals([problem.detail, problem.layer, problem.limit], [
    "ranks[1] must be at most 32 (layer 2), got 33",
    2,
    32,
  ]);
});
