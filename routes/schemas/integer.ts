/**
 * Whole numbers whose faults are told as such: zod alone says of `"3"` that it is no number.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";

/** A whole number of at least `minimum`. */
export function integer(minimum: number): z.ZodInt {
  const error = (issue: { readonly code?: string }): string | undefined =>
    issue.code === "invalid_type" ? "must be an integer" : undefined;
  return z.int({ error }).min(minimum);
}
