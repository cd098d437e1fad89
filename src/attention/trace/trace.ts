/**
 * Traces: tensors seen as elements of what first made them, with a scale and a shift each.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import type { NodeProto } from "../../onnx/node.ts";
import type { Projection } from "./projection.ts";
import { broadcastIndex } from "./value.ts";

/** What first made numbers: tracing goes back to here and no further. */
export interface Source {
  readonly kind: "projection" | "product" | "input" | "other";
  readonly graph: Graph;
  /** Name of the value. */
  readonly name: string;
  readonly shape: readonly number[];
  /** The node that made it; undefined for a model input. */
  readonly node: NodeProto | undefined;
  readonly projection: Projection | undefined;
  /** First of the source's numbers in the tracer's numbering of origins. */
  readonly base: number;
}

/** An affine view of sources: element i is `scale[i] · origin[i] + offset[i]`. */
export interface Trace {
  readonly shape: readonly number[];
  /** For every element, the number of the source element it comes from; −1 for a constant. */
  readonly origin: Int32Array;
  readonly scale: Float64Array;
  readonly offset: Float64Array;
  /**
   * Undefined if the view is exact. Otherwise why it isn't (a rotation, a norm…): `origin` then still says which element
   * of a projection it mainly depends on.
   */
  readonly inexact: string | undefined;
}

/** A trace broadcast to a shape; its arrays are its own. */
export function broadcastTrace(trace: Trace, shape: readonly number[]): Trace {
  return pickElements(trace, shape, broadcastIndex(trace.shape, shape));
}

/** The elements of a trace at given flat indices, in another shape. */
export function pickElements(trace: Trace, shape: readonly number[], index: Int32Array): Trace {
  const { length } = index;
  const origin = new Int32Array(length);
  const scale = new Float64Array(length);
  const offset = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const from = index[i]!;
    origin[i] = trace.origin[from]!;
    scale[i] = trace.scale[from]!;
    offset[i] = trace.offset[from]!;
  }
  return { shape, origin, scale, offset, inexact: trace.inexact };
}

/** Traces one after the other, as the joined numbering of a movement's data inputs has them. */
export function joinTraces(parts: readonly Trace[]): Trace {
  const length = parts.reduce((total, part) => total + part.origin.length, 0);
  const whole = {
    shape: [length],
    origin: new Int32Array(length),
    scale: new Float64Array(length),
    offset: new Float64Array(length),
    inexact: parts.find((part) => part.inexact !== undefined)?.inexact,
  };
  let at = 0;
  for (const part of parts) {
    whole.origin.set(part.origin, at);
    whole.scale.set(part.scale, at);
    whole.offset.set(part.offset, at);
    at += part.origin.length;
  }
  return whole;
}
