/**
 * What only a real server shows: bodies that come in pieces, and clients that go away. On loopback.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import { createApp } from "../../routes/app.ts";
import { FakeServices } from "../support/fake_services.ts";

async function listening(run: (base: string, services: FakeServices) => Promise<void>): Promise<void> {
  const services = new FakeServices();
  const app = createApp(services, { loopback: true });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, app.fetch);
  try {
    await run(`http://127.0.0.1:${server.addr.port}`, services);
  } finally {
    await server.shutdown();
  }
}

const json = { "content-type": "application/json" };

Deno.test("a 5 MB body gets its 413, and the connection goes on", () =>
  listening(async (base) => {
    const body = JSON.stringify({ inputs: { question: "Who?", context: "x".repeat(5_000_000) } });
    const response = await fetch(base, { method: "POST", headers: json, body });
    assertEquals(response.status, 413);
    assertEquals((await response.json()).maxBytes, 1048576);
    const stream = new Blob([body]).stream();
    const chunked = await fetch(base, { method: "POST", headers: json, body: stream });
    assertEquals(chunked.status, 413);
    await chunked.body?.cancel();
    const next = await fetch(base, {
      method: "POST",
      headers: json,
      body: JSON.stringify({ question: "Who?", context: "Ada" }),
    });
    assertEquals((await next.json()).answer, "Ada");
  }));

Deno.test("a client that sends all of 5 MB before it reads gets the 413 too, not a broken connection", () =>
  listening(async (base) => {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(base).port) });
    const head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n" +
      "Connection: close\r\n\r\n";
    await new Blob([head, new Uint8Array(5_000_000).fill(32)]).stream().pipeTo(connection.writable, {
      preventClose: true,
    });
    const answer = await new Response(connection.readable).text();
    assertEquals(answer.split("\r\n")[0], "HTTP/1.1 413 Payload Too Large");
  }));

Deno.test("a client that drops its connection ends its event stream at the service", () =>
  listening(async (base, services) => {
    await fetch(`${base}/v1/compression`, { method: "POST", headers: json, body: '{"ranks":[8,8,4]}' }).then((
      response,
    ) => response.body?.cancel());
    const client = new AbortController();
    const response = await fetch(`${base}/v1/compression/jobs/1/events`, { signal: client.signal });
    const reader = response.body!.getReader();
    await reader.read();
    const [stream] = services.streams;
    const gone = new Promise<void>((resolve) => stream!.addEventListener("abort", () => resolve()));
    client.abort();
    await reader.closed.catch(() => {});
    await gone;
    assertEquals(stream!.aborted, true);
  }));
