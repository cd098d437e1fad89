/**
 * Bridges zod's optional properties (`T | undefined`) and this project's exact ones.
 *
 * @module
 */

/** `T` whose optional properties may be absent but not `undefined`, all the way down. */
export type Exact<T> = T extends readonly unknown[] ? T
  : T extends object ? { [K in keyof T]: Exact<Exclude<T[K], undefined>> }
  : T;

/** Tells the type system what JSON guarantees: a property is there with a value, or not there. */
export function exact<T>(parsed: T): Exact<T> {
  return parsed as Exact<T>;
}
