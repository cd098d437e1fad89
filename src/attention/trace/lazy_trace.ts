/**
 * Linear traces that are worked out for an element when it is asked for: values on the way take no memory.
 *
 * @module
 */
import { sizeOf } from "../../onnx/tensor.ts";
import type { LinearTerms } from "./linear_terms.ts";
import type { Trace } from "./trace.ts";

/** What makes the terms of a value's elements. */
export interface LazyTrace {
  readonly shape: readonly number[];
  /** Appends the terms of an element; false where it isn't linear. */
  readonly add: (element: number, to: LinearTerms) => boolean;
}

/** A value between the projection and the traced ones that stands for it: its elements are terms of their own. */
export interface LinearStart {
  readonly name: string;
  /** Which element of the projection each of its elements carries, on the way of no other. */
  readonly trace: Trace;
  /** What they are multiplied by and what is added then, for each of the last axis' `size` places; 1 and 0 where undefined. */
  readonly gain: ArrayLike<number> | undefined;
  readonly shift: ArrayLike<number> | undefined;
  readonly size: number;
}

/** An exact view: one term for each element, and none for a zero. */
export function exact({ shape, origin, scale, offset }: Trace): LazyTrace {
  const add = (element: number, to: LinearTerms): true => {
    const [from, shift] = [origin[element]!, offset[element]!];
    if (from !== -1 || shift !== 0) to.push(from, scale[element]!, shift);
    return true;
  };
  return { shape, add };
}

/** Elements that stand for those of the projection, each one term. */
export function started({ trace: { shape, origin }, gain, shift, size }: LinearStart): LazyTrace {
  const add = (element: number, to: LinearTerms): true => {
    to.push(origin[element]!, gain?.[element % size] ?? 1, shift?.[element % size] ?? 0);
    return true;
  };
  return { shape, add };
}

/** Elements of several values in one numbering, one value after the other. */
export function join([first, ...others]: readonly LazyTrace[]): LazyTrace["add"] {
  if (others.length === 0) return first!.add;
  const rest = join(others);
  const size = sizeOf(first!.shape);
  return (element, to) => element < size ? first!.add(element, to) : rest(element - size, to);
}
