/**
 * What HTTP itself asks of every route: bodies, types, methods.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert/mod.js";
import { serve } from "../support/http.ts";

const question = JSON.stringify({ inputs: { question: "Who?", context: "Ada did." } });

Deno.test("a body that isn't JSON is 400", async () => {
  for (const body of ["", "{", "{'inputs': 1}", "\u0000"]) {
    const response = await serve().send("POST", "/", { body });
    assertEquals(response.status, 400, body);
    assertStringIncludes((await response.json()).detail, "JSON");
  }
});

Deno.test("a body that isn't UTF-8 is 400, not repaired", async () => {
  const bytes = new TextEncoder().encode(question);
  bytes[bytes.indexOf("A".charCodeAt(0))] = 0xff;
  const response = await serve().app.request("/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: bytes,
  });
  assertEquals(response.status, 400);
  await response.body?.cancel();
});

Deno.test("a body over the limit is 413 and names the limit, with and without a length", async () => {
  const { app, send, services } = serve({ maxBodyBytes: 2000 });
  const text = (length: number): string =>
    JSON.stringify({ inputs: { question: "Who?", context: "x".repeat(length) } });
  const overhead = text(0).length;
  assertEquals((await send("POST", "/", { body: text(2000 - overhead) })).status, 200);
  const response = await send("POST", "/", { body: text(2001 - overhead) });
  assertEquals(response.status, 413);
  assertStringIncludes((await response.json()).detail, "at most 2000 bytes");
  const stream = new Blob([text(2001 - overhead)]).stream();
  const chunked = await app.request("/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: stream,
  });
  assertEquals(chunked.status, 413);
  await chunked.body?.cancel();
  assertEquals(services.asked.length, 1);
});

Deno.test("of a body over the limit no more is read than tells it", async () => {
  let read = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller): void {
      read += 1000;
      if (read > 1_000_000) controller.close();
      else controller.enqueue(new Uint8Array(1000).fill(32));
    },
  });
  const { app } = serve({ maxBodyBytes: 2000 });
  const response = await app.request("/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: endless,
  });
  assertEquals(response.status, 413);
  await response.body?.cancel();
  assert(read <= 10_000, `${read} bytes were read`);
});

Deno.test("very deep and very long values are refused, not stumbled over", async () => {
  const depth = 200_000;
  const deep = `${"[".repeat(depth)}${"]".repeat(depth)}`;
  const cases: [string, string][] = [
    [deep, "body must be an object, got an array of 1 items"],
    [`{"inputs":${deep}}`, "body.inputs must be an object, got an array of 1 items"],
    [`{"inputs":"${"x".repeat(100_000)}"}`, "body.inputs must be an object, got a string of 100000 characters"],
  ];
  for (const [body, detail] of cases) {
    const response = await serve().send("POST", "/", { body });
    assertEquals([response.status, (await response.json()).detail], [422, detail]);
  }
});

Deno.test("any other content type is 415, with parameters it is taken", async () => {
  for (
    const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
      "application/jsonx",
    ]
  ) {
    const response = await serve().send("POST", "/", { body: question, headers: { "content-type": type } });
    assertEquals(response.status, 415, type);
    assertStringIncludes((await response.json()).detail, JSON.stringify(type));
  }
  const untyped = await serve().app.request("/", { method: "POST", body: new TextEncoder().encode(question) });
  assertEquals(untyped.status, 415);
  await untyped.body?.cancel();
  const utf8 = await serve().send("POST", "/", {
    body: question,
    headers: { "content-type": "Application/JSON; charset=utf-8" },
  });
  assertEquals(utf8.status, 200);
});

Deno.test("a method that a route doesn't take is 405 with Allow", async () => {
  const { send } = serve();
  const cases: [string, string, string][] = [
    ["PUT", "/v1/compression", "GET, HEAD, OPTIONS, POST"],
    ["GET", "/v1/compression/preview", "OPTIONS, POST"],
    ["POST", "/v1/compression/jobs/1", "DELETE, GET, HEAD, OPTIONS"],
    ["DELETE", "/", "GET, HEAD, OPTIONS, POST"],
    ["GET", "/models/owner/name", "OPTIONS, POST"],
  ];
  for (const [method, path, allow] of cases) {
    const response = await send(method, path);
    assertEquals([response.status, response.headers.get("allow")], [405, allow], `${method} ${path}`);
  }
});

Deno.test("OPTIONS lists the methods and grants no other origin anything", async () => {
  const response = await serve().send("OPTIONS", "/v1/compression", {
    headers: { origin: "http://evil.example", "access-control-request-method": "POST" },
  });
  assertEquals([response.status, response.headers.get("allow")], [204, "GET, HEAD, OPTIONS, POST"]);
  assertEquals([...response.headers.keys()].filter((name) => name.startsWith("access-control")), []);
});

Deno.test("HEAD is GET without a body", async () => {
  const { send } = serve();
  const get = await send("GET", "/v1/compression");
  const head = await send("HEAD", "/v1/compression");
  assertEquals([head.status, await head.text()], [200, ""]);
  assertEquals(head.headers.get("content-type"), get.headers.get("content-type"));
  assertEquals((await send("HEAD", "/nothing")).status, 404);
});

Deno.test("nothing at a path is 404, also below and beside routes", async () => {
  for (
    const path of [
      "/nothing",
      "/v1",
      "/v1/compression/",
      "/v1/compression/jobs",
      "/models",
      "/models/a/b/c",
      "/health/x",
    ]
  ) {
    const response = await serve().send("GET", path);
    assertEquals(response.status, 404, path);
    assertEquals((await response.json()).type, "/docs#problem-not-found");
  }
});

Deno.test("browsers are told not to guess, and pages run their own files only", async () => {
  const api = await serve().send("GET", "/v1/compression");
  assertEquals(api.headers.get("x-content-type-options"), "nosniff");
  const page = await serve().send("GET", "/");
  const policy = page.headers.get("content-security-policy")!;
  assertStringIncludes(policy, "default-src 'none'");
  assertStringIncludes(policy, "script-src 'self';");
  assert(!policy.includes("unsafe"));
});
