/**
 * Results without their numbers: what reports and graphs need of factors are ranks and sizes, so memory holds those of all layers, and
 * the numbers of one.
 *
 * @module
 */
import { release } from "../release.ts";

/** The same, with lengths in the place of arrays of numbers. */
export type Sketch<T> = T extends Float32Array ? { readonly length: number }
  : T extends object ? { readonly [K in keyof T]: Sketch<T[K]> }
  : T;

/** The sketch of a result, whose numbers are given back. */
export function sketched<T>(result: T): Sketch<T> {
  const rest = sketch(result);
  releaseNumbers(result);
  return rest;
}

function sketch<T>(result: T): Sketch<T> {
  if (result instanceof Float32Array) return { length: result.length } as Sketch<T>;
  if (Array.isArray(result)) return result.map(sketch) as Sketch<T>;
  if (typeof result !== "object" || result === null) return result as Sketch<T>;
  return Object.fromEntries(Object.entries(result).map(([key, value]) => [key, sketch(value)])) as Sketch<T>;
}

/** Gives the memory of all arrays in a result back; whoever calls must be the only one who holds them. */
export function releaseNumbers(result: unknown): void {
  if (result instanceof Float32Array) release(result);
  else if (typeof result === "object" && result !== null) {
    for (const part of Object.values(result)) releaseNumbers(part);
  }
}
