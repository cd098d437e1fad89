/**
 * `fetch` for the hub: with the user's token, a limit on silence, and a bounded number of retries.
 *
 * @module
 */
import { delay } from "@std/async/delay.js";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { type HubRequestContext, refusal, unreachable } from "./faults.ts";

/** Attempts at one request, the first included; as many at the body of one file. */
export const ATTEMPTS = 5;
/** The hub counts requests in windows of five minutes; a longer wait is the user's to decide on. */
const LONGEST_WAIT_MS = 60_000;
/** Silence after which a connection counts as lost. */
export const SILENCE_MS = 30_000;

/** What was asked of, and how its requests wait. */
export interface HubConnection extends HubRequestContext {
  readonly signal?: AbortSignal | undefined;
  /** Waits between two attempts, in milliseconds; tests pass one that doesn't. */
  readonly pause?: ((milliseconds: number, signal?: AbortSignal) => Promise<void>) | undefined;
}

/** Statuses that another attempt may change. */
const passing = new Set([408, 429, 500, 502, 503, 504]);
/** The requested range lies outside the file: the caller's to handle. */
const RANGE_NOT_SATISFIABLE = 416;

/**
 * A `fetch` for one model's requests. Retries what may pass (no connection, 408, 429, 5xx) with doubling pauses, or after
 * what Retry-After says; gives only successes and 416.
 *
 * @throws TuckerdError by `refusal` and `unreachable`; the signal's reason once it is aborted
 */
export function createHubFetch(connection: HubConnection): typeof fetch {
  return async (input, init = {}) => {
    for (let attempt = 1;; attempt++) {
      const outcome = await attemptOnce(input, init, connection);
      if (outcome instanceof Response) return outcome;
      const wait = outcome.waitMs ?? backoff(attempt);
      if (!outcome.mayPass || attempt === ATTEMPTS || wait > LONGEST_WAIT_MS) throw explain(outcome, attempt);
      log(1, `hub: ${outcome.error.message}; attempt ${attempt + 1} of ${ATTEMPTS} in ${wait / 1000} s`);
      await waitBetween(wait, connection);
    }
  };
}

/** Waits before the next attempt; throws the signal's reason once it is aborted. */
export async function waitBetween(milliseconds: number, { signal, pause = pauseFor }: HubConnection): Promise<void> {
  await pause(milliseconds, signal).catch((error) => {
    signal?.throwIfAborted();
    throw error;
  });
}

/** Half a second, doubled with each attempt. */
export function backoff(attempt: number): number {
  return 500 * 2 ** (attempt - 1);
}

function pauseFor(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return delay(milliseconds, signal === undefined ? {} : { signal });
}

interface Failure {
  readonly error: TuckerdError;
  readonly mayPass: boolean;
  /** What Retry-After asks for. */
  readonly waitMs?: number | undefined;
}

async function attemptOnce(
  input: URL | Request | string,
  init: RequestInit,
  connection: HubConnection,
): Promise<Response | Failure> {
  const { signal, settings } = connection;
  signal?.throwIfAborted();
  const headers = new Headers(init.headers);
  const url = new URL(input instanceof Request ? input.url : input);
  // Listings can link elsewhere: the token is for the hub alone. `fetch` itself drops it where a redirect leaves the origin.
  if (settings.token !== undefined && url.origin === new URL(settings.endpoint).origin) {
    headers.set("authorization", `Bearer ${settings.token.secret}`);
  }
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(new Error(`no answer for ${SILENCE_MS / 1000} s`)), SILENCE_MS);
  const signals = [silence.signal, ...(signal == null ? [] : [signal]), ...(init.signal == null ? [] : [init.signal])];
  try {
    const response = await fetch(input, { ...init, headers, signal: AbortSignal.any(signals) });
    if (response.ok || response.status === RANGE_NOT_SATISFIABLE) return response;
    await response.body?.cancel();
    return {
      error: refusal(response, connection),
      mayPass: passing.has(response.status),
      waitMs: retryAfter(response.headers.get("retry-after")),
    };
  } catch (error) {
    signal?.throwIfAborted();
    return { error: unreachable(error, connection), mayPass: true };
  } finally {
    clearTimeout(timer);
  }
}

/** Milliseconds that a Retry-After header asks for: seconds, or a date (RFC 9110, 10.2.3). */
export function retryAfter(header: string | null, now: number = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function explain({ error, mayPass, waitMs }: Failure, attempts: number): TuckerdError {
  if (!mayPass) return error;
  const asks = waitMs === undefined ? "" : `; it asks to wait ${Math.ceil(waitMs / 1000)} s`;
  return new TuckerdError(error.kind, `${error.message} (attempts: ${attempts}${asks})`, {
    cause: error,
    fields: error.fields,
  });
}
