/**
 * Numbers of every head of keys, as they stand beside the heads that run.
 *
 * @module
 */
import type { HeadView } from "../heads.ts";

/** Numbers [H · h] of the heads that run, [G · h]: heads of a group have the same. */
export function firstOfGroups({ heads, headSize: h }: HeadView, numbers: Float32Array, groups: number): Float32Array {
  const repeat = heads / groups;
  return Float32Array.from({ length: groups * h }, (_, i) => numbers[Math.floor(i / h) * repeat * h + i % h]!);
}
