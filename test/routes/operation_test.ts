import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert/mod.js";
import { metricText } from "../../routes/metrics.ts";
import { serve } from "../support/http.ts";

Deno.test("live answers in every state; ready says how far it is", async () => {
  const { send, services } = serve();
  for (const state of ["starting", "loading", "compressing", "failed", "stopping"] as const) {
    services.state = { state, progress: 0.4, ...(state === "failed" ? { reason: "model.onnx is truncated" } : {}) };
    const live = await send("GET", "/health/live");
    assertEquals([live.status, await live.json()], [200, { status: "live" }]);
    for (const path of ["/health/ready", "/health"]) {
      const response = await send("GET", path);
      assertEquals(response.status, 503);
      assertMatch(response.headers.get("retry-after")!, /^\d+$/);
      const problem = await response.json();
      assertEquals([problem.state, problem.progress], [state, 0.4]);
      if (state === "failed") assertStringIncludes(problem.detail, "model.onnx is truncated");
    }
  }
  services.state = { state: "ready", progress: 1 };
  const ready = await send("GET", "/health/ready");
  assertEquals([ready.status, await ready.json()], [200, { state: "ready", progress: 1 }]);
  const before = (Date.now() - services.startedAt.getTime()) / 1000;
  const health = await (await send("GET", "/health")).json();
  assertEquals([health.version, health.generation], ["0.0.0-test", 1]);
  const after = (Date.now() - services.startedAt.getTime()) / 1000;
  assert(health.uptimeSeconds >= before && health.uptimeSeconds <= after, `${before} ${health.uptimeSeconds} ${after}`);
});

Deno.test("/info tells the model once it is there, and who may change", async () => {
  const { send, services } = serve();
  const info = await (await send("GET", "/info")).json();
  assertEquals(info.model, { id: "default", architecture: "bert", task: "question-answering", maxInputTokens: 512 });
  assertEquals([info.generation, info.maxBodyBytes, info.keys], [1, 1048576, {
    inference: false,
    administration: "open",
  }]);
  services.state = { state: "loading", progress: 0 };
  const early = await (await send("GET", "/info")).json();
  assertEquals([early.model, early.generation, early.state], [undefined, undefined, "loading"]);
  const closed = await (await serve({ loopback: false, apiKey: "k" }).send("GET", "/info")).json();
  assertEquals(closed.keys, { inference: true, administration: "closed" });
  const keyed = await (await serve({ adminKey: "k" }).send("GET", "/info")).json();
  assertEquals(keyed.keys.administration, "key");
});

Deno.test("metrics count requests by route and status, without user text", async () => {
  const { send } = serve();
  const body = { inputs: { question: "PRIVATE?", context: "PRIVATE" } };
  await send("POST", "/", { body });
  await send("POST", "/models/default@0", { body });
  await send("POST", "/", { body: "{" });
  await send("GET", "/PRIVATE");
  await send("BREW", "/PRIVATE");
  await send("GET", "/v1/compression/jobs/PRIVATE");
  const response = await send("GET", "/metrics");
  assertEquals(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const text = await response.text();
  assert(!text.includes("PRIVATE"));
  for (
    const line of [
      'tuckerd_http_requests_total{method="POST",route="/",status="200"} 1',
      'tuckerd_http_requests_total{method="POST",route="/",status="400"} 1',
      'tuckerd_http_requests_total{method="POST",route="/models/:id",status="200"} 1',
      'tuckerd_http_requests_total{method="GET",route="unmatched",status="404"} 1',
      'tuckerd_http_requests_total{method="other",route="unmatched",status="404"} 1',
      'tuckerd_http_requests_total{method="GET",route="/v1/compression/jobs/:id",status="404"} 1',
      "tuckerd_http_requests_in_flight 1",
      'tuckerd_build_info{version="0.0.0-test"} 1',
      'tuckerd_queue_length{model="a\\"b"} 2',
      'tuckerd_http_request_duration_seconds_count{method="POST",route="/"} 2',
    ]
  ) assertStringIncludes(text, `${line}\n`);
});

Deno.test("metrics are well-formed: help and type before samples, buckets that grow to the count", async () => {
  const { send } = serve();
  for (let i = 0; i < 5; i++) await send("GET", "/health/live");
  const text = await (await send("GET", "/metrics")).text();
  assert(text.endsWith("\n"));
  const typed = new Map<string, string>();
  let bucket = 0;
  for (const line of text.trimEnd().split("\n")) {
    const type = line.match(/^# TYPE (\S+) (counter|gauge|histogram)$/);
    if (type) {
      assert(!typed.has(type[1]!), `${type[1]} is typed twice`);
      typed.set(type[1]!, type[2]!);
      continue;
    }
    if (line.startsWith("# HELP ")) continue;
    const sample = line.match(/^([a-z_]+)(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? (\S+)$/);
    if (sample === null) throw new Error(`not a sample: ${line}`);
    const family = typed.has(sample[1]!) ? sample[1]! : sample[1]!.replace(/_(bucket|sum|count)$/, "");
    assert(typed.has(family), `${sample[1]} comes before its type`);
    if (sample[1]!.endsWith("_bucket")) {
      assert(Number(sample[6]) >= bucket, line);
      bucket = line.includes('le="+Inf"') ? 0 : Number(sample[6]);
    }
  }
  assertStringIncludes(
    text,
    'tuckerd_http_request_duration_seconds_bucket{method="GET",route="/health/live",le="+Inf"} 5\n',
  );
});

Deno.test("a metric's help and labels are escaped", () => {
  const text = metricText({
    name: "x",
    help: "a\\b\nc",
    type: "gauge",
    samples: [{ labels: { l: 'a\\b"\n' }, value: Infinity }],
  });
  assertEquals(text, '# HELP tuckerd_x a\\\\b\\nc\n# TYPE tuckerd_x gauge\ntuckerd_x{l="a\\\\b\\"\\n"} +Inf\n');
});
