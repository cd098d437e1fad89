/**
 * Reads JSON bodies: the right type, within the limit, well-formed; validation comes after.
 *
 * @module
 */
import type { Context, MiddlewareHandler } from "hono";
import { HttpProblem } from "./errors.ts";

/**
 * Checks a JSON body and leaves its text where `c.req.json()` finds it.
 *
 * @param maxBytes The largest body that is taken.
 */
export function jsonBody(maxBytes: number): MiddlewareHandler {
  return async (c, next) => {
    const body = await readLimited(c, maxBytes);
    const type = c.req.header("content-type");
    if (!/^application\/json\s*(;|$)/i.test(type ?? "")) {
      throw new HttpProblem(
        "unsupported-media-type",
        `The content type must be application/json, got ${type === undefined ? "none" : JSON.stringify(type)}`,
      );
    }
    // Not made from the old request: that would take its signal along, and watching it makes Deno warn.
    c.req.raw = new Request(c.req.url, { method: c.req.method, headers: c.req.raw.headers, body });
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(body); // c.req.json() would repair what isn't UTF-8
      await c.req.json();
    } catch {
      throw new HttpProblem("malformed", `The body must be JSON in UTF-8, and these ${body.byteLength} bytes are not`);
    }
    await next();
  };
}

async function readLimited(c: Context, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of c.req.raw.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) break; // Deno reads the rest away, so that the client gets to the answer
    chunks.push(chunk);
  }
  if (size > maxBytes) {
    throw new HttpProblem(
      "too-large",
      `The body must be at most ${maxBytes} bytes, and this one is larger; send less, or set TUCKERD_MAX_BODY`,
      { extensions: { maxBytes } },
    );
  }
  const body = new Uint8Array(size);
  let offset = 0;
  for (const chunk of chunks) {
    body.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return body;
}
