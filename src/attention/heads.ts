/**
 * Reads a traced operand of an attention product: which projection makes it, and which of the projection's columns is
 * which position of which head.
 *
 * @module
 */
import type { NodeProto } from "../onnx/node.ts";
import { sizeOf } from "../onnx/tensor.ts";
import { type RowOrder, rowOrder } from "./rows.ts";
import type { Projection } from "./trace/projection.ts";
import type { Source, Trace } from "./trace/trace.ts";
import type { Tracer } from "./trace/tracer.ts";

/** A norm of each head: v / √(mean(v²) + ε). */
export interface HeadNorm {
  readonly epsilon: number;
  /** The ReduceMean over a head: it tells how the model's version of the operators names axes. */
  readonly mean: NodeProto;
}

/** One of query, key and value as an attention product reads it. */
export interface HeadView {
  readonly projection: Projection;
  readonly heads: number;
  readonly headSize: number;
  /** Column of the projection that position j of head i is, at [i · headSize + j]. Grouped heads repeat columns. */
  readonly columns: Int32Array;
  /** The operand is `scale · (stream @ W + bias)`; 1 where the view isn't exact. */
  readonly scale: number;
  /** Bias of every position of every head, like `columns`; undefined where all are zero or unknown. */
  readonly bias: Float32Array | undefined;
  /** Why the operand is more than a scaled, shifted projection; undefined if it is exactly that. */
  readonly inexact: string | undefined;
  /** How the projection's input gives its rows as [batch, positions]; absent where it doesn't, or where the view isn't exact. */
  readonly order?: RowOrder;
  /** The operand is the norm of each head of that, without a gain; absent where there is none. */
  readonly norm?: HeadNorm;
  /** Name of the past that stands before the new positions (a cache); undefined without one. */
  readonly past: string | undefined;
  /**
   * There are no new positions: the past is all (keys of an encoder, in every call but the first). The projection is the one
   * that filled the cache, in another branch or file.
   */
  readonly fromCache?: true;
}

/** A key or value that an attention reads whole from a cache [batch, heads, positions, head size]. */
export interface CachedHeads {
  /** Name of the model input that holds it. */
  readonly cache: string;
  readonly heads: number;
  readonly headSize: number;
  /** The operand is `scale · cache`. */
  readonly scale: number;
}

/** Sizes of an operand seen as heads × positions × head size. */
interface Operand {
  readonly trace: Trace;
  readonly lead: number;
  readonly positions: number;
  readonly headSize: number;
  readonly at: (lead: number, position: number, j: number) => number;
}

/**
 * Reads an operand of shape [..., positions, h], or [..., h, positions] if `transposed`.
 *
 * @returns the view, or the reason why the operand can't be read as heads.
 */
export function readHeads(tracer: Tracer, trace: Trace, transposed: boolean): HeadView | string {
  const read = readAs(tracer, trace, transposed);
  if (typeof read !== "string" || typeof readAs(tracer, trace, !transposed) === "string") return read;
  return "its matrices have a head's channels where attention has positions: channels attend to channels";
}

function readAs(tracer: Tracer, trace: Trace, transposed: boolean): HeadView | string {
  const operand = operandOf(trace, transposed);
  if (operand === undefined) return `it has shape [${trace.shape}], not that of a stack of matrices`;
  const made = makers(tracer, operand);
  if (typeof made === "string") return made;
  const { source, fresh, past } = made;
  const projection = source.projection!;
  const rows = source.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const batch = rows / fresh.length;
  const heads = operand.lead / batch;
  if (!Number.isInteger(batch) || !Number.isInteger(heads)) {
    return `${operand.lead} matrices of ${fresh.length} positions don't fit the ${rows} rows of its projection`;
  }
  const sizes = { heads, batch, fresh, source };
  if (trace.inexact !== undefined) {
    const columns = columnsByHead(operand, sizes);
    if (typeof columns === "string") return `${trace.inexact}, and ${columns}`;
    return { ...common(projection, operand, heads), columns, scale: 1, bias: undefined, inexact: trace.inexact, past };
  }
  const exact = exactColumns(operand, sizes);
  if (typeof exact === "string") return exact;
  const { rows: places, ...read } = exact;
  const lead = tracer.value(projection.graph, projection.input).shape!.slice(0, -1);
  const order = places && rowOrder(lead, { rows: places, batch });
  return { ...common(projection, operand, heads), ...read, ...(order === undefined ? {} : { order }), past };
}

/** Reads an operand, laid out as for `readHeads`, that is nothing but a cache; undefined if it is anything else. */
export function readCachedHeads(tracer: Tracer, trace: Trace, transposed: boolean): CachedHeads | undefined {
  const operand = operandOf(trace, transposed);
  if (operand === undefined || trace.inexact !== undefined || trace.origin[0]! < 0) return undefined;
  const { source } = tracer.sourceOf(trace.origin[0]!);
  const [batch, heads, positions, headSize] = source.shape;
  const fits = source.kind === "input" && source.shape.length === 4 && operand.lead === batch! * heads! &&
    operand.positions === positions && operand.headSize === headSize;
  if (!fits) return undefined;
  const scale = trace.scale[0]!;
  for (let m = 0, at = source.base; m < operand.lead; m++) {
    for (let t = 0; t < operand.positions; t++) {
      for (let j = 0; j < operand.headSize; j++, at++) {
        const element = operand.at(m, t, j);
        if (trace.origin[element] !== at || trace.scale[element] !== scale || trace.offset[element] !== 0) {
          return undefined;
        }
      }
    }
  }
  return { cache: source.name, heads: heads!, headSize: headSize!, scale };
}

function common(
  projection: Projection,
  operand: Operand,
  heads: number,
): Pick<HeadView, "projection" | "heads" | "headSize"> {
  return { projection, heads, headSize: operand.headSize };
}

function operandOf(trace: Trace, transposed: boolean): Operand | undefined {
  const { shape } = trace;
  if (shape.length < 3) return undefined;
  const [a, b] = shape.slice(-2) as [number, number];
  return {
    trace,
    lead: shape.slice(0, -2).reduce((product, size) => product * size, 1),
    positions: transposed ? b : a,
    headSize: transposed ? a : b,
    at: transposed ? (m, t, j) => (m * a + j) * b + t : (m, t, j) => (m * a + t) * b + j,
  };
}

/** The projection that makes the new positions, which positions those are, and what makes the others. */
function makers(
  tracer: Tracer,
  operand: Operand,
): { source: Source; fresh: number[]; past: string | undefined } | string {
  const projections = new Set<Source>();
  let past: string | undefined;
  const fresh: number[] = [];
  for (let t = 0; t < operand.positions; t++) {
    const sources = new Set<Source>();
    for (let j = 0; j < operand.headSize; j++) {
      const origin = operand.trace.origin[operand.at(0, t, j)]!;
      if (origin < 0) return "it holds constants";
      sources.add(tracer.sourceOf(origin).source);
    }
    const [source, ...more] = sources;
    if (more.length > 0) return `its heads are joined from parts: ${[...sources].map(({ name }) => name).join(", ")}`;
    if (source!.kind === "projection") {
      projections.add(source!);
      fresh.push(t);
    } else if (source!.kind === "input") past = source!.name;
    else return `it comes from ${source!.node?.opType ?? "an input"} (${source!.name}) instead of a projection`;
  }
  const [source, ...others] = projections;
  if (source === undefined) return `it comes from the input ${past ?? "of the model"} instead of a projection`;
  if (others.length > 0) return `it is made by ${others.length + 1} projections`;
  return { source, fresh, past };
}

interface Sizes {
  readonly heads: number;
  readonly batch: number;
  readonly fresh: readonly number[];
  readonly source: Source;
}

/**
 * Columns, scale and bias of an exact operand, checked on every element of the probe, and the row of every position, batch after
 * batch, where all heads have the same. Scales or shifts that differ from position to position or from head to head make a view that
 * isn't exact.
 */
function exactColumns(
  operand: Operand,
  { heads, batch, fresh, source }: Sizes,
): Pick<HeadView, "columns" | "scale" | "bias" | "inexact"> & { readonly rows?: Int32Array } | string {
  const { trace, headSize } = operand;
  const width = source.shape.at(-1)!;
  const columns = new Int32Array(heads * headSize).fill(-1);
  const bias = new Float32Array(heads * headSize);
  const scale = trace.scale[operand.at(0, fresh[0]!, 0)]!;
  if (scale === 0) return "it is multiplied by zero";
  let uneven: string | undefined;
  const rows = new Int32Array(batch * fresh.length).fill(-1);
  let scattered = false;
  for (let m = 0; m < batch * heads; m++) {
    for (let n = 0; n < fresh.length; n++) {
      for (let j = 0; j < headSize; j++) {
        const element = operand.at(m, fresh[n]!, j);
        const index = trace.origin[element]! - source.base;
        const row = Math.floor(index / width);
        const slot = (m % heads) * headSize + j;
        const shift = trace.offset[element]! / scale;
        if (columns[slot] === -1) {
          columns[slot] = index % width;
          bias[slot] = shift;
        }
        const place = Math.floor(m / heads) * fresh.length + n;
        if (rows[place] === -1) rows[place] = row;
        if (rows[place] !== row) scattered = true;
        if (columns[slot] !== index % width) {
          return "its heads aren't laid out as [batch, heads, positions, head size]";
        }
        if (trace.scale[element] !== scale) uneven ??= "its elements have different scales";
        if (bias[slot] !== Math.fround(shift)) uneven ??= "its bias isn't the same at every position";
      }
    }
  }
  if (uneven !== undefined) return { columns, scale: 1, bias: undefined, inexact: uneven };
  return {
    columns,
    scale,
    bias: bias.some((value) => value !== 0) ? bias : undefined,
    inexact: undefined,
    ...(scattered ? {} : { rows }),
  };
}

/** Columns of an operand that something was done to: those that each head depends on, in ascending order. */
function columnsByHead(operand: Operand, { heads, batch, fresh, source }: Sizes): Int32Array | string {
  const { trace, headSize } = operand;
  const width = source.shape.at(-1)!;
  const size = sizeOf(source.shape);
  const columns = new Int32Array(heads * headSize);
  for (let i = 0; i < heads; i++) {
    const of = (b: number, t: number): number[] => {
      const found = new Set<number>();
      for (let j = 0; j < headSize; j++) {
        const index = trace.origin[operand.at(b * heads + i, t, j)]! - source.base;
        // What comes from elsewhere counts as a column of its own, so that no head has exactly its own ones.
        found.add(index >= 0 && index < size ? index % width : -1);
      }
      return [...found].sort((a, b) => a - b);
    };
    const found = of(0, fresh[0]!);
    if (found.length !== headSize || found[0] === -1) {
      return `head ${i} depends on ${found.length} columns, not on ${headSize}`;
    }
    if (String(of(batch - 1, fresh.at(-1)!)) !== String(found)) return "its heads aren't the first part of its shape";
    columns.set(found, i * headSize);
  }
  return columns;
}
