import { assert, assertEquals } from "@std/assert/mod.js";
import { PROBLEMS } from "../../routes/problems.ts";
import { documentOf, serve } from "../support/http.ts";

function* nodes(value: unknown, path = "#"): Generator<[string, Record<string, unknown>]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [path, value as Record<string, unknown>];
  for (const [key, inner] of Object.entries(value)) yield* nodes(inner, `${path}/${key}`);
}

function resolve(document: unknown, reference: string): unknown {
  return reference.split("/").slice(1).reduce<unknown>(
    (node, key) => (node as Record<string, unknown> | undefined)?.[key],
    document,
  );
}

Deno.test("the description is OpenAPI 3.1 and every reference in it resolves", async () => {
  const document = await documentOf(serve().app);
  assertEquals(document.openapi, "3.1.0");
  let references = 0;
  for (const [path, node] of nodes(document)) {
    if (typeof node.$ref !== "string") continue;
    references++;
    assert(resolve(document, node.$ref) !== undefined, `${path}: ${node.$ref} resolves to nothing`);
  }
  assert(references > 50, `${references} references only`);
});

Deno.test("every route of the app is described, and the other way round", async () => {
  const { app } = serve();
  const routes = app.routes.filter((route) => route.method !== "ALL").map((route) =>
    `${route.method} ${route.path.replace(/:(\w+)/g, "{$1}")}`
  );
  const document = await documentOf(app);
  const described = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method.toUpperCase()} ${path}`)
  );
  assertEquals([...new Set(routes)].sort(), described.sort());
});

Deno.test("every route has a summary, a known tag, its path's parameters, and described answers", async () => {
  const document = await documentOf(serve().app);
  const tags = document.tags.map((tag) => tag.name);
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const where = `${method} ${path}`;
      assert(operation.summary, where);
      assert(operation.tags.every((tag) => tags.includes(tag)), where);
      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const declared = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
      assertEquals(declared.map((parameter) => parameter.name), inPath, where);
      assert(declared.every((parameter) => parameter.required), where);
      for (const [status, answer] of Object.entries(operation.responses)) {
        assert(answer.description.length > 0, `${where} ${status}`);
        if (status >= "400") {
          assertEquals(Object.keys(answer.content ?? {}), ["application/problem+json"], `${where} ${status}`);
        }
      }
    }
  }
});

Deno.test("every schema with a name has an example or only simple parts, and examples fit their required names", async () => {
  const document = await documentOf(serve().app);
  const needed = [
    "Answer",
    "QuestionAnsweringRequest",
    "CompressionReport",
    "CompressionRequest",
    "CompressionPreview",
    "CompressionSpectrum",
    "Job",
    "Generation",
    "Health",
    "Info",
    "Problem",
  ];
  for (const name of needed) {
    const schema = document.components.schemas[name] as {
      required?: string[];
      properties: Record<string, unknown>;
      example?: Record<string, unknown>;
    };
    const { example } = schema;
    if (example === undefined) throw new Error(`${name} has no example`);
    for (const required of schema.required ?? []) {
      assert(required in example, `${name}: the example lacks ${required}`);
    }
    for (const key of Object.keys(example)) {
      assert(key in schema.properties, `${name}: the example has ${key}, the schema doesn't`);
    }
  }
});

Deno.test("examples of requests are answered well, as they stand", async () => {
  const document = await documentOf(serve().app);
  const example = (name: string): unknown => (document.components.schemas[name] as { example: unknown }).example;
  assertEquals((await serve().send("POST", "/", { body: example("QuestionAnsweringRequest") })).status, 200);
  assertEquals((await serve().send("POST", "/v1/compression", { body: example("CompressionRequest") })).status, 202);
});

Deno.test("ranks of a request are never null, ranks of a report may be", async () => {
  const { components } = await documentOf(serve().app);
  assertEquals((components.schemas.Ranks as { type: unknown }).type, "array");
});

Deno.test("problems that answers name are explained", async () => {
  const document = await documentOf(serve().app) as unknown as { "x-problems": Record<string, unknown> };
  assertEquals(document["x-problems"], JSON.parse(JSON.stringify(PROBLEMS)));
});
