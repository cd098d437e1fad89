/**
 * `POST /` and `POST /models/{id}`: the Hugging Face question-answering contract.
 *
 * @module
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context, TypedResponse } from "hono";
import { TuckerdError } from "../src/errors.ts";
import type { Answer, Services } from "../src/serve/services.ts";
import { BODY_PROBLEMS, GENERATION_HEADER, generationRequest, INFERENCE_KEY, json, problems } from "./documentation.ts";
import { HttpProblem } from "./errors.ts";
import { chooseGeneration } from "./generation.ts";
import { AnswerOrAnswers, QuestionAnsweringRequest } from "./schemas/answers.ts";
import { exact } from "./schemas/exact.ts";
import type { RouteTools } from "./tools.ts";

const description =
  "Finds the answer to a question in a context. Offsets count Unicode code points, as Hugging Face's do, unless " +
  "`parameters.offsets` is `utf16`.";

/** Registers the answering routes. */
export function questionAnsweringRoutes(app: OpenAPIHono, services: Services, tools: RouteTools): void {
  const { guards, ready, jsonBody } = tools;
  const shared = {
    method: "post" as const,
    tags: ["Answering"],
    description,
    security: INFERENCE_KEY,
    middleware: [guards.inference, jsonBody, ready],
    responses: {
      200: json(AnswerOrAnswers, "The answer, or an array of them where `top_k` is above 1."),
      ...problems(...BODY_PROBLEMS, "unauthorized", "forbidden", "not-found", "overloaded", "unavailable"),
    },
  };
  const body = { required: true, content: { "application/json": { schema: QuestionAnsweringRequest } } };
  const headers = generationRequest;
  const id = z.string().min(1).openapi({
    description: "The model's id as `/info` tells it; with `@` and a number, that generation of it.",
    example: "default@3",
  });
  const owner = z.string().min(1).openapi({
    description: "First part of an id such as `owner/name`.",
    example: "owner",
  });
  const name = z.string().min(1).openapi({
    description: "Second part; with `@` and a number, that generation.",
    example: "name@3",
  });

  app.openapi(
    createRoute({ ...shared, path: "/", summary: "Answer a question", request: { body, headers } }),
    (c) => answer(c, services, { body: c.req.valid("json"), headers: c.req.valid("header") }),
  );
  app.openapi(
    createRoute({
      ...shared,
      path: "/models/{id}",
      summary: "Answer a question by a named model",
      request: { body, headers, params: z.object({ id }) },
    }),
    (c) =>
      answer(c, services, { body: c.req.valid("json"), headers: c.req.valid("header"), id: c.req.valid("param").id }),
  );
  app.openapi(
    createRoute({
      ...shared,
      path: "/models/{owner}/{name}",
      summary: "Answer a question by a named model, its id in two parts",
      request: { body, headers, params: z.object({ owner, name }) },
    }),
    (c) => {
      const { owner, name } = c.req.valid("param");
      return answer(c, services, { body: c.req.valid("json"), headers: c.req.valid("header"), id: `${owner}/${name}` });
    },
  );
}

interface Asked {
  readonly body: z.output<typeof QuestionAnsweringRequest>;
  readonly headers: z.output<typeof generationRequest>;
  readonly id?: string;
}

async function answer(
  c: Context,
  services: Services,
  asked: Asked,
): Promise<TypedResponse<Answer | Answer[], 200, "json">> {
  const { model, ...choice } = chooseGeneration(asked.headers[GENERATION_HEADER], asked.id);
  const served = services.model();
  if (model !== undefined && model !== served.id) {
    throw new HttpProblem(
      "not-found",
      `There is no model ${JSON.stringify(model)} here; this server serves ${served.id}`,
    );
  }
  const { offsets, ...parameters } = exact(asked.body.parameters ?? {});
  const { answers, generation } = await services.questionAnswering.answer(
    { ...asked.body.inputs, parameters, ...(offsets === undefined ? {} : { offsets }) },
    choice,
  );
  c.header(GENERATION_HEADER, String(generation));
  if ((parameters.top_k ?? 1) > 1) return c.json([...answers], 200);
  const [first] = answers;
  if (first === undefined) throw new TuckerdError("failed", "The model gave no answer, not even the empty one");
  return c.json(first, 200);
}
