/**
 * Calls an app without a network, and checks what holds for every answer: the status is documented, errors are problems.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { createApp } from "../../routes/app.ts";
import type { AppOptions } from "../../routes/tools.ts";
import { FakeServices } from "./fake_services.ts";

/** An app over fake services. */
export interface Server {
  readonly app: ReturnType<typeof createApp>;
  readonly services: FakeServices;
  /** Sends a request; `body` becomes JSON unless it is a string. */
  send(method: string, path: string, request?: { body?: unknown; headers?: Record<string, string> }): Promise<Response>;
}

/** The parts of an OpenAPI document that tests look at. */
export interface OpenApiDocument {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, OpenApiOperation>>;
  readonly components: { schemas: Record<string, unknown>; securitySchemes: Record<string, unknown> };
  readonly tags: { name: string }[];
}

/** One route of an OpenAPI document. */
export interface OpenApiOperation {
  readonly tags: string[];
  readonly summary?: string;
  readonly responses: Record<string, { description: string; content?: Record<string, { schema?: unknown }> }>;
  readonly parameters?: { name: string; in: string; required?: boolean }[];
  readonly requestBody?: { content: Record<string, { schema: unknown }> };
}

/** Makes an app over fake services. */
export function serve(options: Partial<AppOptions> = {}, services: FakeServices = new FakeServices()): Server {
  const app = createApp(services, { loopback: true, ...options });
  return {
    app,
    services,
    async send(method, path, { body, headers = {} } = {}): Promise<Response> {
      const response = await app.request(path, {
        method,
        headers: body === undefined || "content-type" in headers
          ? headers
          : { "content-type": "application/json", ...headers },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
      });
      await assertDocumented(method, path, response);
      if (response.status >= 400 && method !== "HEAD") await assertProblem(response.clone(), path);
      return response;
    },
  };
}

/** The OpenAPI document, from an app of its own: the one under test may be broken on purpose. */
const documented = documentOf(createApp(new FakeServices(), { loopback: true }));

/** The OpenAPI document of an app. */
export async function documentOf(app: ReturnType<typeof createApp>): Promise<OpenApiDocument> {
  const response = await app.request("/openapi.json");
  return await response.json();
}

/** The documented route that a request falls under. */
export function operationOf(document: OpenApiDocument, method: string, path: string): OpenApiOperation | undefined {
  const { pathname } = new URL(path, "http://localhost");
  const matching = Object.keys(document.paths).filter((template) =>
    new RegExp(`^${template.replace(/\{\w+\}/g, "[^/]+")}$`).test(pathname)
  );
  // A template without parameters is the closer match.
  const template = matching.find((one) => !one.includes("{")) ?? matching[0];
  return template === undefined ? undefined : document.paths[template]![method.toLowerCase()];
}

async function assertDocumented(method: string, path: string, response: Response): Promise<void> {
  const operation = operationOf(await documented, method === "HEAD" ? "GET" : method, path);
  if (operation === undefined) {
    assert(
      [204, 404, 405].includes(response.status),
      `${method} ${path} isn't documented, yet answers ${response.status}`,
    );
    return;
  }
  if (response.status === 304) return; // conditional requests
  assert(
    String(response.status) in operation.responses,
    `${method} ${path} answers ${response.status}, which isn't documented`,
  );
}

async function assertProblem(response: Response, path: string): Promise<void> {
  assertEquals(response.headers.get("content-type"), "application/problem+json");
  const problem = await response.json();
  assertEquals(problem.status, response.status);
  assert(/^\/docs#problem-[a-z-]+$/.test(problem.type), problem.type);
  assert(problem.title.length > 0);
  assert(problem.detail.length > 0);
  assertEquals(problem.error, problem.detail);
  assertEquals(problem.instance, new URL(path, "http://localhost").pathname);
  assert(!/\n\s+at |file:\/\//.test(JSON.stringify(problem)), "a stack trace was shown");
}
