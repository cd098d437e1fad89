/** What the hub refuses, and what the user is told; retries are bounded and wait as long as they are asked to. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert/mod.js";
import { type ErrorKind, TuckerdError } from "../../src/errors.ts";
import { retryAfter } from "../../src/hub/http.ts";
import { refuse } from "../support/hub.ts";
import { bertQa, bytes, HubBench } from "../support/hub_cache.ts";

const token = { secret: "hf_right", source: "HF_TOKEN" };

/** Fails with a kind, and says each of the parts. */
async function assertFails(work: Promise<unknown>, kind: ErrorKind, ...parts: readonly string[]): Promise<void> {
  const error = await assertRejects(() => work, TuckerdError);
  assertEquals(error.kind, kind, error.message);
  for (const part of parts) assertStringIncludes(error.message, part);
  assert(!error.message.includes("hf_"), `a token was shown: ${error.message}`);
}

Deno.test("a private repository: without a token, with a wrong one, with the right one", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/private", bertQa, { token: token.secret });
  await assertFails(bench.fetch("hf:test/private"), "unauthorized", "without a token", "HF_TOKEN");
  const wrong = { secret: "hf_wrong", source: "/home/me/token" };
  await assertFails(
    bench.fetch("hf:test/private", { token: wrong }),
    "unauthorized",
    "refuses the token of /home/me/token",
    "/settings/tokens",
  );
  assertEquals(bench.pauses, []);
  bench.hub.seen.length = 0;
  await bench.fetch("hf:test/private", { token });
  for (const { path, authorization } of bench.hub.seen) {
    const onHub = path.includes("test/private");
    assertEquals(authorization, onHub ? "Bearer hf_right" : null, `${path}: the token is for the hub alone`);
  }
});

Deno.test("a listing that goes on elsewhere doesn't take the token there", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/private", bertQa, { token: token.secret });
  bench.hub.intercept = (_, path) => {
    if (path === "/next") return Response.json([]);
    const link = `<${bench.hub.contentOrigin}/next>; rel="next"`;
    return path.includes("/tree/") ? Response.json([], { headers: { link } }) : undefined;
  };
  await assertFails(bench.fetch("hf:test/private", { token }), "not-found", "no ONNX file, nor any other");
  assertEquals(bench.hub.seen.map(({ path, authorization }) => [path.split("/").at(-1), authorization]), [
    ["main", "Bearer hf_right"],
    [bench.hub.seen[1]!.path.split("/").at(-1), "Bearer hf_right"],
    ["next", null],
  ]);
});

Deno.test("a gated repository: its conditions and HF_TOKEN are named", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/gated", bertQa, { token: token.secret, gated: true });
  const page = `accept its conditions on ${bench.hub.endpoint}/test/gated`;
  await assertFails(bench.fetch("hf:test/gated"), "forbidden", "gated", "without a token", page, "HF_TOKEN");
  const other = { secret: "hf_other", source: "HF_TOKEN" };
  await assertFails(bench.fetch("hf:test/gated", { token: other }), "forbidden", "with the token of HF_TOKEN");
});

Deno.test("a repository, revision or file that isn't there", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", { ...bertQa, "onnx/model_q4.onnx": bytes("q4") });
  await assertFails(bench.fetch("hf:test/none"), "unauthorized", "hf:test/none isn't on", "check the spelling");
  await assertFails(bench.fetch("hf:test/none", { token }), "not-found", "hf:test/none isn't on");
  await assertFails(bench.fetch("hf:test/bert-qa@v9"), "not-found", 'no revision "v9"', "/test/bert-qa/tree");
  const commit = "0".repeat(40);
  await assertFails(bench.fetch(`hf:test/bert-qa@${commit}`), "not-found", `no revision "${commit}"`);
  await assertFails(
    bench.fetch("hf:test/bert-qa:onnx/model_q8.onnx"),
    "not-found",
    'no file "onnx/model_q8.onnx"',
    "onnx/model.onnx, onnx/model_q4.onnx",
  );
});

Deno.test("a repository without ONNX: what it holds, and how to export", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/torch", { "config.json": bytes("{}"), "model.safetensors": bytes("weights") });
  await assertFails(
    bench.fetch("hf:test/torch"),
    "not-found",
    "no ONNX file, only model.safetensors;",
    "optimum-cli export onnx --model test/torch",
  );
});

Deno.test("429 waits as long as Retry-After says, 503 a little longer each time", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const answers = [
    new Response(null, { status: 429, headers: { "retry-after": "7" } }),
    new Response(null, { status: 503 }),
    new Response(null, { status: 502 }),
  ];
  bench.hub.intercept = () => answers.shift();
  await bench.fetch("hf:test/bert-qa");
  assertEquals(bench.pauses, [7000, 1000, 2000]);
});

Deno.test("retries end: after five attempts, and at once where the hub asks for a long wait", async () => {
  await using bench = new HubBench();
  bench.hub.intercept = () => new Response("…", { status: 503 });
  await assertFails(bench.fetch("hf:test/bert-qa"), "failed", "HTTP 503", "attempts: 5");
  assertEquals([bench.hub.seen.length, bench.pauses.length], [5, 4]);
  bench.hub.intercept = () => new Response(null, { status: 429, headers: { "retry-after": "300" } });
  await assertFails(bench.fetch("hf:test/bert-qa"), "failed", "HTTP 429", "asks to wait 300 s");
  assertEquals([bench.hub.seen.length, bench.pauses.length], [6, 4]);
  // What won't pass isn't tried again.
  bench.hub.intercept = () => refuse(403, "");
  await assertFails(bench.fetch("hf:test/bert-qa"), "forbidden", "HTTP 403");
  assertEquals(bench.hub.seen.length, 7);
});

Deno.test("Retry-After is seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  assertEquals(retryAfter("0", now), 0);
  assertEquals(retryAfter("120", now), 120_000);
  assertEquals(retryAfter("Thu, 01 Jan 2026 00:00:30 GMT", now), 30_000);
  assertEquals(retryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
  assertEquals(retryAfter("soon", now), undefined);
  assertEquals(retryAfter(null, now), undefined);
});

Deno.test("no hub at that address, and an address that is no hub", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  // A port that was free a moment ago: nothing listens there.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const endpoint = `http://127.0.0.1:${listener.addr.port}`;
  listener.close();
  await assertFails(
    bench.fetch("hf:test/bert-qa", { endpoint }),
    "failed",
    `can't reach the hub ${endpoint}`,
    "HF_HUB_OFFLINE=1",
  );
  assertEquals(bench.pauses.length, 4);
  const pages = [
    new Response("<html>Log in to the Wi-Fi</html>"),
    Response.json({ sha: "../../elsewhere" }),
    Response.json({ sha: 7 }),
  ];
  for (const page of pages) {
    bench.hub.intercept = () => page;
    await assertFails(bench.fetch("hf:test/bert-qa"), "failed", "as a Hugging Face hub does", "HF_ENDPOINT");
  }
});

Deno.test("a listing that would write outside the cache is refused", async () => {
  await using bench = new HubBench();
  bench.hub.commit("test/bert-qa", bertQa);
  const file = { type: "file", path: "config.json", size: 1, oid: "a".repeat(40) };
  const evil = [
    { ...file, path: "../config.json" },
    { ...file, path: "/config.json" },
    { ...file, oid: "../../../blob" },
    { ...file, size: -1 },
  ];
  for (const entry of evil) {
    bench.hub.intercept = (_, path) => path.includes("/tree/") ? Response.json([entry]) : undefined;
    await assertFails(bench.fetch("hf:test/bert-qa"), "failed", "as a Hugging Face hub does");
  }
});
