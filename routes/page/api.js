/**
 * Calls to the server: JSON in and out, keys from this tab, problems as errors, events as they come.
 *
 * @module
 */

/** A problem that the server told, or that kept it from being reached. */
export class Problem extends Error {
  /**
   * @param {string} detail
   * @param {number} status 0 where there was no answer.
   */
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }
}

/** @param {boolean} admin */
function authorization(admin) {
  const key = admin
    ? sessionStorage.getItem("admin-key")
    : sessionStorage.getItem("api-key") || sessionStorage.getItem("admin-key");
  return key ? { authorization: `Bearer ${key}` } : {};
}

/**
 * @param {string} path
 * @param {{ method?: string, body?: unknown, admin?: boolean, generation?: string, signal?: AbortSignal }} options
 */
async function send(path, { method = "GET", body, admin = false, generation, signal } = {}) {
  const headers = {
    ...authorization(admin),
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...(generation ? { "x-tuckerd-generation": generation } : {}),
  };
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The server can't be reached", 0);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(problem.detail ?? `${response.status} ${response.statusText}`, response.status);
}

/**
 * One call. Resolves with the answer, the generation that gave it, and the milliseconds that it took.
 *
 * @param {string} path
 * @param {Parameters<typeof send>[1]} [options]
 * @returns {Promise<{ data: any, generation: string | null, milliseconds: number }>}
 * @throws {Problem}
 */
export async function call(path, options) {
  const started = performance.now();
  const response = await send(path, options);
  const data = await response.json();
  return { data, generation: response.headers.get("x-tuckerd-generation"), milliseconds: performance.now() - started };
}

/**
 * The events of a stream. EventSource can't send a key, so this reads the stream itself.
 *
 * @param {string} path
 * @returns {AsyncGenerator<{ event: string, data: any }>}
 */
export async function* events(path) {
  const response = await send(path);
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of chunks(response.body)) {
    rest += decoder.decode(chunk, { stream: true });
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(
        block.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
          const colon = line.indexOf(":");
          return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
        }),
      );
      if (fields.has("data")) yield { event: fields.get("event") ?? "message", data: JSON.parse(fields.get("data")) };
    }
  }
}

/** Safari reads streams by reader only. */
async function* chunks(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel();
  }
}
