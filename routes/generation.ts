/**
 * The generation that answers: picked by a request, told by every answer.
 *
 * @module
 */
import type { MiddlewareHandler } from "hono";
import type { CompressionService, GenerationChoice } from "../src/serve/services.ts";
import { GENERATION_HEADER } from "./documentation.ts";
import { HttpProblem } from "./errors.ts";

/** Tells on every answer the generation that gave it, or the one serving now where a route has not said. */
export function tellGeneration(compression: CompressionService): MiddlewareHandler {
  return async (c, next) => {
    await next();
    if (c.res.headers.has(GENERATION_HEADER)) return;
    const active = compression.generations().find((generation) => generation.active);
    if (active !== undefined) c.header(GENERATION_HEADER, String(active.generation));
  };
}

/** What `name@generation` and the request header pick together. */
export interface ModelChoice extends GenerationChoice {
  /** The model's id without generation; absent where the route names none. */
  readonly model?: string;
}

/**
 * Reads the generation that a request wants.
 *
 * @param header Value of `x-tuckerd-generation`, digits.
 * @param id Model id, such as `owner/name` or `owner/name@3`.
 * @throws {HttpProblem} `invalid` where the two name different generations.
 */
export function chooseGeneration(header: string | undefined, id?: string): ModelChoice {
  const suffix = id?.match(/^(.*)@(\d{1,9})$/);
  const fromHeader = header === undefined ? undefined : Number(header);
  const fromId = suffix ? Number(suffix[2]) : undefined;
  if (fromHeader !== undefined && fromId !== undefined && fromHeader !== fromId) {
    throw new HttpProblem(
      "invalid",
      `The model id asks for generation ${fromId} and the header ${GENERATION_HEADER} for ${fromHeader}; give one of them`,
    );
  }
  const generation = fromHeader ?? fromId;
  const model = suffix?.[1] ?? id;
  return { ...(generation === undefined ? {} : { generation }), ...(model === undefined ? {} : { model }) };
}
