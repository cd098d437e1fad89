/**
 * The body of every error answer: problem details (RFC 9457) and, for clients that read only that, a string `error`.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";

/** One field of a request that broke a rule. */
export const FieldFault = z.object({
  path: z.string().openapi({ description: "Where: `body.ranks[0]`, `query.wait`." }),
  rule: z.string().openapi({ description: "The rule that was broken." }),
  value: z.string().optional().openapi({ description: "The value given, as JSON; long texts are described instead." }),
}).openapi("FieldFault", { example: { path: "body.ranks[0]", rule: "must be an integer of at least 1", value: "0" } });

/** Problem details, RFC 9457. */
export const Problem = z.looseObject({
  type: z.string().openapi({ description: "Names the kind of problem; resolves to its explanation in `/docs`." }),
  title: z.string(),
  status: z.int(),
  detail: z.string().openapi({ description: "What was tried, the rule, the actual value, and what to do." }),
  error: z.string().openapi({ description: "The same as `detail`." }),
  instance: z.string().optional().openapi({ description: "Path of the request." }),
  errors: z.array(FieldFault).optional().openapi({ description: "Where fields broke rules: each of them." }),
}).openapi("Problem", {
  example: {
    type: "/docs#problem-invalid",
    title: "Invalid request",
    status: 422,
    detail: "body.ranks[0] must be an integer of at least 1, got 0",
    error: "body.ranks[0] must be an integer of at least 1, got 0",
    instance: "/v1/compression",
    errors: [{ path: "body.ranks[0]", rule: "must be an integer of at least 1", value: "0" }],
  },
});
