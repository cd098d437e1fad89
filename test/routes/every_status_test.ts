/**
 * Every status of every documented route, provoked once. The table and /openapi.json must name the same pairs, so that no
 * documented status is unreachable, and none that happens is undocumented.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import type { AppOptions } from "../../routes/tools.ts";
import { TuckerdError } from "../../src/errors.ts";
import { FakeServices } from "../support/fake_services.ts";
import { documentOf, serve } from "../support/http.ts";

interface Scenario {
  /** `METHOD /template`, as documented. */
  readonly route: string;
  readonly status: number;
  readonly path?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
  readonly options?: Partial<AppOptions>;
  readonly arrange?: (services: FakeServices) => void;
}

const question = { inputs: { question: "Who?", context: "Ada Marlow did." } };
const ranks = { ranks: [32, 8, 4] };
const keys = { apiKey: "read", adminKey: "change" };
const loading = (services: FakeServices): void => void (services.state = { state: "loading", progress: 0.25 });
const running = (services: FakeServices): void => void services.compression.start({ ranks: [32, 8, 4] });
const failing = (error: Error) => (services: FakeServices): void => void (services.failure = error);
const broken = (services: FakeServices): void => {
  services.compression.report = services.compression.generations = () => {
    throw new TypeError("a bug");
  };
};
/** Ends whatever job the request starts, as soon as it is started. */
const ending = (end: (services: FakeServices, id: string) => void) => (services: FakeServices): void => {
  const { finished } = services.compression;
  services.compression.finished = (id) => {
    end(services, id);
    return finished(id);
  };
};

/** What every route that reads a JSON body refuses. */
function bodyScenarios(route: string, path: string): Scenario[] {
  return [
    { route, path, status: 400, body: '{"inputs": ' },
    { route, path, status: 413, body: { text: "x".repeat(5_000_000) } },
    { route, path, status: 415, body: "hello", headers: { "content-type": "text/plain" } },
  ];
}

const foreign = { "sec-fetch-site": "cross-site" };

function answering(route: string, path: string): Scenario[] {
  return [
    { route, path, status: 200, body: question },
    ...bodyScenarios(route, path),
    { route, path, status: 401, body: question, options: keys },
    { route, path, status: 403, body: question, headers: foreign },
    { route, path, status: 404, body: question, headers: { "x-tuckerd-generation": "99" } },
    { route, path, status: 422, body: { inputs: { question: "", context: "x" } } },
    {
      route,
      path,
      status: 429,
      body: question,
      arrange: failing(new TuckerdError("overloaded", "The queue of 64 is full")),
    },
    { route, path, status: 500, body: question, arrange: failing(new TypeError("a bug")) },
    { route, path, status: 503, body: question, arrange: loading },
  ];
}

const scenarios: Scenario[] = [
  ...answering("POST /", "/"),
  ...answering("POST /models/{id}", "/models/default"),
  ...answering("POST /models/{owner}/{name}", "/models/some/model").map((one) =>
    one.status === 200 || one.status === 429 || one.status === 500
      ? { ...one, arrange: (services: FakeServices) => (one.arrange?.(services), services.modelId = "some/model") }
      : one
  ),
  { route: "GET /v1/compression", status: 200 },
  { route: "GET /v1/compression", status: 401, options: keys },
  { route: "GET /v1/compression", status: 404, headers: { "x-tuckerd-generation": "99" } },
  { route: "GET /v1/compression", status: 422, headers: { "x-tuckerd-generation": "newest" } },
  { route: "GET /v1/compression", status: 500, arrange: broken },
  { route: "GET /v1/compression", status: 503, arrange: loading },
  { route: "POST /v1/compression", status: 202, body: ranks },
  {
    route: "POST /v1/compression",
    status: 200,
    path: "/v1/compression?wait=true",
    body: ranks,
    arrange: ending((services, id) => services.succeed(id)),
  },
  ...bodyScenarios("POST /v1/compression", "/v1/compression"),
  { route: "POST /v1/compression", status: 401, body: ranks, options: keys },
  { route: "POST /v1/compression", status: 403, body: ranks, options: { loopback: false } },
  { route: "POST /v1/compression", status: 409, body: ranks, arrange: running },
  { route: "POST /v1/compression", status: 422, body: { ranks: [0, 8, 4] } },
  {
    route: "POST /v1/compression",
    status: 500,
    path: "/v1/compression?wait=true",
    body: ranks,
    arrange: ending((services, id) =>
      services.fail(id, { kind: "failed", detail: "The decomposition process was killed" })
    ),
  },
  { route: "POST /v1/compression", status: 503, body: ranks, arrange: loading },
  { route: "POST /v1/compression/preview", status: 200, body: ranks },
  ...bodyScenarios("POST /v1/compression/preview", "/v1/compression/preview"),
  { route: "POST /v1/compression/preview", status: 401, body: ranks, options: keys },
  { route: "POST /v1/compression/preview", status: 403, body: ranks, headers: foreign },
  { route: "POST /v1/compression/preview", status: 422, body: { energy: 2 } },
  { route: "POST /v1/compression/preview", status: 500, body: ranks, arrange: failing(new Error("a bug")) },
  { route: "POST /v1/compression/preview", status: 503, body: ranks, arrange: loading },
  { route: "GET /v1/compression/spectrum", status: 200 },
  { route: "GET /v1/compression/spectrum", status: 401, options: keys },
  {
    route: "GET /v1/compression/spectrum",
    status: 422,
    arrange: failing(new TuckerdError("unsupported", "Mode laser has no tensor")),
  },
  { route: "GET /v1/compression/spectrum", status: 500, arrange: failing(new Error("a bug")) },
  { route: "GET /v1/compression/spectrum", status: 503, arrange: loading },
  { route: "GET /v1/compression/jobs/{id}", status: 200, path: "/v1/compression/jobs/1", arrange: running },
  { route: "GET /v1/compression/jobs/{id}", status: 401, path: "/v1/compression/jobs/1", options: keys },
  { route: "GET /v1/compression/jobs/{id}", status: 404, path: "/v1/compression/jobs/1" },
  { route: "GET /v1/compression/jobs/{id}", status: 422, path: `/v1/compression/jobs/${"1".repeat(201)}` },
  { route: "GET /v1/compression/jobs/{id}", status: 500, path: "/v1/compression/jobs/1", arrange: broken },
  {
    route: "GET /v1/compression/jobs/{id}/events",
    status: 200,
    path: "/v1/compression/jobs/1/events",
    arrange: (services) => (running(services), services.succeed("1")),
  },
  {
    route: "GET /v1/compression/jobs/{id}/events",
    status: 204,
    path: "/v1/compression/jobs/1/events",
    headers: { "last-event-id": "final" },
    arrange: (services) => (running(services), services.succeed("1")),
  },
  { route: "GET /v1/compression/jobs/{id}/events", status: 401, path: "/v1/compression/jobs/1/events", options: keys },
  { route: "GET /v1/compression/jobs/{id}/events", status: 404, path: "/v1/compression/jobs/1/events" },
  {
    route: "GET /v1/compression/jobs/{id}/events",
    status: 422,
    path: `/v1/compression/jobs/${"1".repeat(201)}/events`,
  },
  {
    route: "GET /v1/compression/jobs/{id}/events",
    status: 500,
    path: "/v1/compression/jobs/1/events",
    arrange: broken,
  },
  { route: "DELETE /v1/compression/jobs/{id}", status: 200, path: "/v1/compression/jobs/1", arrange: running },
  { route: "DELETE /v1/compression/jobs/{id}", status: 401, path: "/v1/compression/jobs/1", options: keys },
  {
    route: "DELETE /v1/compression/jobs/{id}",
    status: 403,
    path: "/v1/compression/jobs/1",
    options: { loopback: false },
  },
  { route: "DELETE /v1/compression/jobs/{id}", status: 404, path: "/v1/compression/jobs/1" },
  { route: "DELETE /v1/compression/jobs/{id}", status: 422, path: `/v1/compression/jobs/${"1".repeat(201)}` },
  { route: "DELETE /v1/compression/jobs/{id}", status: 500, path: "/v1/compression/jobs/1", arrange: broken },
  { route: "GET /v1/generations", status: 200 },
  { route: "GET /v1/generations", status: 401, options: keys },
  { route: "GET /v1/generations", status: 500, arrange: broken },
  { route: "POST /v1/generations/{n}/activate", status: 200, path: "/v1/generations/0/activate" },
  { route: "POST /v1/generations/{n}/activate", status: 401, path: "/v1/generations/0/activate", options: keys },
  {
    route: "POST /v1/generations/{n}/activate",
    status: 403,
    path: "/v1/generations/0/activate",
    options: { loopback: false },
  },
  { route: "POST /v1/generations/{n}/activate", status: 404, path: "/v1/generations/9/activate" },
  {
    route: "POST /v1/generations/{n}/activate",
    status: 409,
    path: "/v1/generations/0/activate",
    arrange: failing(new TuckerdError("conflict", "Job 1 is under way")),
  },
  { route: "POST /v1/generations/{n}/activate", status: 422, path: "/v1/generations/-1/activate" },
  { route: "POST /v1/generations/{n}/activate", status: 500, path: "/v1/generations/0/activate", arrange: broken },
  { route: "POST /v1/generations/{n}/activate", status: 503, path: "/v1/generations/0/activate", arrange: loading },
  { route: "GET /health/live", status: 200, arrange: loading },
  { route: "GET /health/ready", status: 200 },
  { route: "GET /health/ready", status: 503, arrange: loading },
  { route: "GET /health", status: 200 },
  { route: "GET /health", status: 503, arrange: loading },
  { route: "GET /info", status: 200, arrange: loading },
  { route: "GET /metrics", status: 200, arrange: loading },
  { route: "GET /openapi.json", status: 200, arrange: loading },
  { route: "GET /", status: 200, arrange: loading },
  { route: "GET /docs", status: 200, arrange: loading },
  { route: "GET /assets/{file}", status: 200, path: "/assets/style.css", arrange: loading },
  { route: "GET /assets/{file}", status: 404, path: "/assets/main.ts" },
  ...["/health/live", "/health/ready", "/health", "/info", "/metrics", "/openapi.json", "/", "/docs"].map((path) => (
    { route: `GET ${path}`, status: 500, arrange: broken }
  )),
  { route: "GET /assets/{file}", status: 500, path: "/assets/style.css", arrange: broken },
];

Deno.test("every documented status of every route happens, and no other", async (t) => {
  const documented = Object.entries((await documentOf(serve().app)).paths).flatMap(([path, item]) =>
    Object.entries(item).flatMap(([method, operation]) =>
      Object.keys(operation.responses).map((status) => `${method.toUpperCase()} ${path} ${status}`)
    )
  );
  const provoked = new Set(scenarios.map((one) => `${one.route} ${one.status}`));
  assertEquals([...provoked].sort(), documented.sort());

  for (const { route, status, path, body, headers, options, arrange } of scenarios) {
    const [method, template] = route.split(" ") as [string, string];
    await t.step(`${method} ${path?.slice(0, 60) ?? template} ${status}`, async () => {
      const server = serve(options, new FakeServices());
      arrange?.(server.services);
      const response = await server.send(method, path ?? template, {
        body,
        ...(headers === undefined ? {} : { headers }),
      });
      assertEquals(response.status, status, await response.text());
      if (!response.bodyUsed) await response.body?.cancel();
    });
  }
});
