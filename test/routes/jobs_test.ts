import { assert, assertEquals } from "@std/assert/mod.js";
import { eventText } from "../../routes/job_events.ts";
import { serve } from "../support/http.ts";

interface ServerSentEvent {
  readonly event: string;
  readonly data: string;
  readonly id: string;
}

/** Parses a stream by the rules of the HTML standard, section 9.2.6, comments counted. */
class EventReader {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #buffer = "";
  comments = 0;

  constructor(response: Response) {
    this.#reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next event; undefined at the end of the stream. */
  async next(): Promise<ServerSentEvent | undefined> {
    let [event, data, id] = ["message", undefined as string | undefined, ""];
    for (;;) {
      const line = await this.#line();
      if (line === undefined) return undefined;
      if (line === "") {
        if (data !== undefined) return { event, data, id };
        continue;
      }
      const [, field, value] = line.match(/^([^:]*):? ?(.*)$/)!;
      if (field === "") this.comments++;
      if (field === "event") event = value!;
      if (field === "data") data = data === undefined ? value! : `${data}\n${value}`;
      if (field === "id") id = value!;
    }
  }

  /** Reads until a comment has come. */
  async comment(): Promise<void> {
    while (this.comments === 0) {
      const line = await this.#line();
      if (line === undefined) throw new Error("the stream ended before a comment");
      if (line.startsWith(":")) this.comments++;
    }
  }

  cancel(): Promise<void> {
    return this.#reader.cancel();
  }

  async #line(): Promise<string | undefined> {
    for (;;) {
      const end = this.#buffer.indexOf("\n");
      if (end >= 0) {
        const line = this.#buffer.slice(0, end);
        this.#buffer = this.#buffer.slice(end + 1);
        return line;
      }
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#buffer += value;
    }
  }
}

const ranks = { ranks: [32, 8, 4] };

Deno.test("a job's events: present state, layers, changes, and the end when it is final", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  const response = await send("GET", "/v1/compression/jobs/1/events");
  assertEquals(response.headers.get("content-type"), "text/event-stream");
  assertEquals(response.headers.get("cache-control"), "no-store");
  assertEquals(response.headers.get("x-tuckerd-generation"), "1");
  const events = new EventReader(response);
  const first = await events.next();
  assertEquals([first!.event, first!.id, JSON.parse(first!.data).state], ["state", "1", "running"]);
  services.finishLayer("1");
  const layer = await events.next();
  assertEquals([layer!.event, layer!.id], ["layer", "2"]);
  assertEquals(Object.keys(JSON.parse(layer!.data)), ["layer", "name", "relativeError"]);
  const progress = await events.next();
  assertEquals([progress!.event, progress!.id, JSON.parse(progress!.data).layers], ["state", "3", {
    done: 1,
    total: 4,
  }]);
  services.succeed("1");
  const last = await events.next();
  assertEquals([last!.event, last!.id, JSON.parse(last!.data).state], ["state", "final", "succeeded"]);
  assertEquals(JSON.parse(last!.data).report.generation, 2);
  assertEquals(await events.next(), undefined);
  assert(services.streams[0]!.aborted, "the service's iterator was not told to stop");
});

Deno.test("ids go on from Last-Event-ID, and after the final event the answer is 204", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  const again = new EventReader(
    await send("GET", "/v1/compression/jobs/1/events", { headers: { "last-event-id": "7" } }),
  );
  assertEquals((await again.next())!.id, "8");
  await again.cancel();
  const strange = new EventReader(
    await send("GET", "/v1/compression/jobs/1/events", { headers: { "last-event-id": "x" } }),
  );
  assertEquals((await strange.next())!.id, "1");
  await strange.cancel();
  services.fail("1", { kind: "failed", detail: "killed" });
  const ended = new EventReader(
    await send("GET", "/v1/compression/jobs/1/events", { headers: { "last-event-id": "8" } }),
  );
  assertEquals((await ended.next())!.id, "final");
  assertEquals(await ended.next(), undefined);
  const done = await send("GET", "/v1/compression/jobs/1/events", { headers: { "last-event-id": "final" } });
  assertEquals([done.status, await done.text()], [204, ""]);
});

Deno.test("HEAD of a stream opens none", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  const response = await send("HEAD", "/v1/compression/jobs/1/events");
  assertEquals([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
  assertEquals(services.streams, []);
});

Deno.test("comments keep a quiet stream open", async () => {
  const { send } = serve({ heartbeatSeconds: 0.001 });
  await send("POST", "/v1/compression", { body: ranks });
  const events = new EventReader(await send("GET", "/v1/compression/jobs/1/events"));
  await events.next();
  await events.comment();
  await events.cancel();
});

Deno.test("a client that goes stops the service's iterator", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  const events = new EventReader(await send("GET", "/v1/compression/jobs/1/events"));
  await events.next();
  assert(!services.streams[0]!.aborted);
  await events.cancel();
  assert(services.streams[0]!.aborted);
});

Deno.test("an iterator that fails ends the stream", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  // deno-lint-ignore require-yield -- it fails before its first event
  services.compression.events = async function* (): AsyncGenerator<never> {
    await Promise.resolve();
    throw new Error("stopping");
  };
  const events = new EventReader(await send("GET", "/v1/compression/jobs/1/events"));
  assertEquals(await events.next(), undefined);
});

Deno.test("an event is one line of data, whatever it holds", () => {
  const text = eventText({ event: "layer", data: { layer: 0, name: "a\nb\r\u2028c", relativeError: 0.5 } }, "4");
  assertEquals(text, 'event: layer\ndata: {"layer":0,"name":"a\\nb\\r\u2028c","relativeError":0.5}\nid: 4\n\n');
});

Deno.test("cancelling ends a job; one that is final stays as it is", async () => {
  const { send, services } = serve();
  await send("POST", "/v1/compression", { body: ranks });
  const cancelled = await send("DELETE", "/v1/compression/jobs/1");
  assertEquals((await cancelled.json()).state, "cancelled");
  assertEquals(services.active, 1);
  await send("POST", "/v1/compression", { body: ranks });
  services.succeed("2");
  assertEquals((await (await send("DELETE", "/v1/compression/jobs/2")).json()).state, "succeeded");
});
