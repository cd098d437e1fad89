import { assert, assertEquals, assertStringIncludes } from "@std/assert/mod.js";
import { equalKeys } from "../../routes/auth.ts";
import { serve, type Server } from "../support/http.ts";

const question = { inputs: { question: "Who?", context: "Ada did." } };
const ranks = { ranks: [32, 8, 4] };
const keys = { apiKey: "read-key", adminKey: "change-key" };
const bearer = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });

async function statuses(server: Server, headers: Record<string, string>): Promise<number[]> {
  const answers = [
    await server.send("POST", "/", { body: question, headers }),
    await server.send("GET", "/v1/compression", { headers }),
    await server.send("POST", "/v1/compression/preview", { body: ranks, headers }),
    await server.send("POST", "/v1/compression", { body: ranks, headers }),
    await server.send("DELETE", "/v1/compression/jobs/1", { headers }),
    await server.send("POST", "/v1/generations/0/activate", { headers }),
  ];
  return answers.map((answer) => answer.status);
}

Deno.test("answering and reading take either key, changing takes the administration key", async () => {
  assertEquals(await statuses(serve(keys), {}), [401, 401, 401, 401, 401, 401]);
  assertEquals(await statuses(serve(keys), bearer("wrong")), [401, 401, 401, 401, 401, 401]);
  assertEquals(await statuses(serve(keys), bearer("read-key")), [200, 200, 200, 403, 403, 403]);
  assertEquals(await statuses(serve(keys), bearer("change-key")), [200, 200, 200, 202, 200, 200]);
});

Deno.test("with an administration key alone, answering is open", async () => {
  assertEquals(await statuses(serve({ adminKey: "change-key" }), {}), [200, 200, 200, 401, 401, 401]);
});

Deno.test("with an inference key alone, this machine may change", async () => {
  assertEquals(await statuses(serve({ apiKey: "read-key" }), {}), [401, 401, 401, 202, 200, 200]);
});

Deno.test("beyond this machine, without an administration key, nothing can be changed, and the answer says why", async () => {
  const server = serve({ loopback: false });
  assertEquals(await statuses(server, {}), [200, 200, 200, 403, 403, 403]);
  const response = await server.send("POST", "/v1/compression", { body: ranks });
  assertStringIncludes((await response.json()).detail, "TUCKERD_ADMIN_KEY");
  assertEquals(server.services.started, []);
  assertEquals(await statuses(serve({ loopback: false, adminKey: "change-key" }), bearer("change-key")), [
    200,
    200,
    200,
    202,
    200,
    200,
  ]);
});

Deno.test("without a key, changes must be addressed to this machine: no proxies, no re-bound names", async () => {
  const { app } = serve();
  const post = (host: string): Promise<Response> =>
    Promise.resolve(app.request(`http://${host}/v1/compression`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(ranks),
    }));
  const foreign = await post("tuckerd.example.com");
  assertEquals(foreign.status, 403);
  assertStringIncludes((await foreign.json()).detail, "tuckerd.example.com");
  for (const host of ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"]) {
    assert([202, 409].includes((await post(host)).status), host);
  }
});

Deno.test("a 401 says how to authenticate", async () => {
  const missing = await serve(keys).send("POST", "/", { body: question });
  assertEquals(missing.headers.get("www-authenticate"), 'Bearer realm="tuckerd"');
  const wrong = await serve(keys).send("POST", "/", { body: question, headers: bearer("wrong") });
  assertEquals(wrong.headers.get("www-authenticate"), 'Bearer realm="tuckerd", error="invalid_token"');
  for (const authorization of ["Basic cmVhZC1rZXk=", "read-key", "Bearer", "Bearer read-key x"]) {
    assertEquals(
      (await serve(keys).send("POST", "/", { body: question, headers: { authorization } })).status,
      401,
      authorization,
    );
  }
  assertEquals(
    (await serve(keys).send("POST", "/", { body: question, headers: { authorization: "bearer  read-key" } })).status,
    200,
  );
});

Deno.test("keys never show in answers", async () => {
  const response = await serve(keys).send("POST", "/v1/compression", { body: ranks, headers: bearer("read-key") });
  assert(!(await response.text()).includes("read-key"));
});

Deno.test("health, metrics and the documents are open", async () => {
  for (
    const path of [
      "/health/live",
      "/health/ready",
      "/health",
      "/info",
      "/metrics",
      "/openapi.json",
      "/docs",
      "/",
      "/assets/main.js",
    ]
  ) {
    assertEquals((await serve({ ...keys, loopback: false }).send("GET", path)).status, 200, path);
  }
});

Deno.test("keys are equal as whole strings only", async () => {
  assert(await equalKeys("read-key", "read-key"));
  for (const other of ["", "read", "read-key ", "read-kez", "Read-key", "read-key\u0000"]) {
    assert(!await equalKeys(other, "read-key"), other);
  }
});

Deno.test("keys are compared by digests of one length, byte by byte to the end", async () => {
  // The comparison must see digests: inputs of any length, one length compared.
  const { subtle } = crypto;
  const seen: number[] = [];
  const digest = subtle.digest.bind(subtle);
  const spy = async (algorithm: AlgorithmIdentifier, data: BufferSource): Promise<ArrayBuffer> => {
    const hash = await digest(algorithm, data);
    seen.push(hash.byteLength);
    return hash;
  };
  Object.defineProperty(subtle, "digest", { value: spy, configurable: true });
  try {
    await equalKeys("x", "a much longer key than the one that was given");
  } finally {
    Reflect.deleteProperty(subtle, "digest");
  }
  assertEquals(seen, [32, 32]);
});

Deno.test("pages of other origins can't change or ask", async () => {
  const cases: [Record<string, string>, number][] = [
    [{ "sec-fetch-site": "cross-site" }, 403],
    [{ "sec-fetch-site": "same-site" }, 403],
    [{ "sec-fetch-site": "same-origin" }, 200],
    [{ "sec-fetch-site": "none" }, 200],
    [{ origin: "http://evil.example" }, 403],
    [{ origin: "null" }, 403],
    [{ origin: "http://localhost" }, 200],
    [{}, 200],
  ];
  for (const [headers, status] of cases) {
    const server = serve();
    const response = await server.send("POST", "/v1/generations/0/activate", { headers });
    assertEquals(response.status, status, JSON.stringify(headers));
    assertEquals(response.headers.get("access-control-allow-origin"), null);
    assertEquals(server.services.active, status === 200 ? 0 : 1);
  }
});
