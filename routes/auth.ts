/**
 * Bearer keys (RFC 6750). Answering and reading take either key, changing takes the administration key only.
 *
 * @module
 */
import { timingSafeEqual } from "@std/crypto/timing_safe_equal.js";
import type { Context, MiddlewareHandler } from "hono";
import { isLoopback } from "../src/config.ts";
import { HttpProblem } from "./errors.ts";

/** Keys and reach of the server. */
export interface AuthOptions {
  readonly apiKey?: string;
  readonly adminKey?: string;
  /** Whether only this machine can reach the server. */
  readonly loopback: boolean;
}

/** The two guards that routes stand behind. */
export interface Guards {
  /** Answering and reading. */
  readonly inference: MiddlewareHandler;
  /** Changing what serves. */
  readonly administration: MiddlewareHandler;
}

/**
 * Compares two keys in time that depends on neither: their SHA-256 digests have one length, whatever theirs are.
 *
 * @param given What the request carries.
 * @param expected The configured key.
 */
export async function equalKeys(given: string, expected: string): Promise<boolean> {
  const [left, right] = await Promise.all([digest(given), digest(expected)]);
  const equal: boolean = timingSafeEqual(left, right);
  return equal;
}

/** Makes the guards for a server's keys. */
export function createGuards(options: AuthOptions): Guards {
  return {
    inference: async (c, next) => {
      if (options.apiKey !== undefined) await checkKey(c, [options.apiKey, options.adminKey], "TUCKERD_API_KEY");
      await next();
    },
    administration: async (c, next) => {
      if (options.adminKey === undefined) refuseUnlessLocal(c, options.loopback);
      else await checkAdminKey(c, options.adminKey, options.apiKey);
      await next();
    },
  };
}

function digest(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}

function bearer(c: Context): string | undefined {
  return c.req.header("authorization")?.match(/^Bearer +([\x21-\x7e]+) *$/i)?.[1];
}

/** Tries every key, also after a match, so that the time tells nothing. */
async function matches(given: string, keys: readonly (string | undefined)[]): Promise<boolean> {
  const equal = await Promise.all(keys.map((key) => key === undefined ? false : equalKeys(given, key)));
  return equal.includes(true);
}

async function checkKey(c: Context, keys: readonly (string | undefined)[], variable: string): Promise<void> {
  const given = bearer(c);
  if (given === undefined) {
    throw unauthorized(`This route needs the key of ${variable}: send Authorization: Bearer KEY`, "");
  }
  if (!await matches(given, keys)) {
    throw unauthorized(`The bearer key is not the one of ${variable}`, ', error="invalid_token"');
  }
}

async function checkAdminKey(c: Context, adminKey: string, apiKey: string | undefined): Promise<void> {
  const given = bearer(c);
  if (given !== undefined && await matches(given, [apiKey])) {
    throw new HttpProblem(
      "forbidden",
      "The bearer key is the one for inference; changing the server needs that of TUCKERD_ADMIN_KEY",
    );
  }
  await checkKey(c, [adminKey], "TUCKERD_ADMIN_KEY");
}

/**
 * Without a key, only this machine may change the server. A request that came to another name than this machine's was passed
 * on by a proxy, or by a page whose host name was re-bound to 127.0.0.1.
 */
function refuseUnlessLocal(c: Context, loopback: boolean): void {
  if (!loopback) {
    throw new HttpProblem(
      "forbidden",
      "The server listens beyond this machine and has no administration key, so it can't be changed: set TUCKERD_ADMIN_KEY and " +
        "start it again, or listen on 127.0.0.1",
    );
  }
  const { hostname } = new URL(c.req.url);
  if (!isLoopback(hostname)) {
    throw new HttpProblem(
      "forbidden",
      `Without an administration key the server takes changes addressed to localhost only, and this one was addressed to ` +
        `${JSON.stringify(hostname)}: set TUCKERD_ADMIN_KEY and start it again`,
    );
  }
}

function unauthorized(detail: string, parameters: string): HttpProblem {
  return new HttpProblem("unauthorized", detail, {
    headers: { "www-authenticate": `Bearer realm="tuckerd"${parameters}` },
  });
}
