/**
 * The keys that a product of scores reads, as linear views: which element is which number of which head and position, and that
 * past positions stand there as they were given out.
 *
 * @module
 */
import { type KeyElement, keysOf, operatorLayout, productLayout } from "./key_layout.ts";
import type { Site } from "./site.ts";
import type { LinearTracer } from "./trace/linear.ts";
import type { LinearTrace } from "./trace/linear_terms.ts";
import type { Tracer } from "./trace/tracer.ts";

/** The keys of all positions, of which the last `tokens` are new. */
export interface KeyOperand {
  readonly batch: number;
  readonly tokens: number;
  readonly past: number;
  /** Times the keys that the model gives out. */
  readonly multiple: number;
  readonly trace: LinearTrace;
  /** Which of its elements is number j of a head at a position. */
  readonly element: KeyElement;
}

/**
 * Reads the keys of a site, or says why they can't be made again: they aren't linear in what its projection makes, or the past isn't
 * what was given out. A bias that an operator adds to them itself isn't read: it adds the same to the scores of all positions.
 */
export function readKeyOperand(tracer: Tracer, linear: LinearTracer, site: Site): KeyOperand | string {
  const { graph, key, present, fused } = site;
  const [batch, tokens] = tracer.value(graph, key.projection.input).shape as [number, number];
  const name = keysOf(site);
  const trace = linear.trace(graph, name);
  if (trace === undefined) return linear.problem;
  const layout = fused === undefined
    ? productLayout(tracer, site, { shape: trace.shape, batch })
    : operatorLayout(site, { shape: trace.shape, batch });
  const past = (layout?.positions ?? 0) - tokens;
  if (layout === undefined || past < 0) {
    return `the keys ${name} have shape [${trace.shape}], which isn't heads of positions`;
  }
  const operand = { batch, tokens, past, trace, element: layout.element };
  // What an operator puts behind its own past is what it gives out.
  const inside = fused !== undefined && key.past === undefined && fused.node.output.includes(present.key!);
  if (inside && past === 0) return { ...operand, multiple: 1 };
  const by = past === 0 ? undefined : pastScale(tracer, site, operand);
  if (by === undefined && past > 0) return `the keys ${name} don't begin with those of the cache as they are`;
  const given = linear.trace(graph, present.key!);
  if (given === undefined) return linear.problem;
  const multiple = givenMultiple(given, site, { operand, by });
  return multiple === undefined
    ? `the cache ${present.key} holds other keys than the product of the scores reads`
    : { ...operand, multiple };
}

/** What the past is multiplied by; undefined where it is something else than multiplied. */
function pastScale(
  tracer: Tracer,
  { graph, key }: Site,
  { batch, past, trace, element }: Omit<KeyOperand, "multiple">,
): number | undefined {
  const { terms, starts } = trace;
  const stored = key.past === undefined ? undefined : tracer.trace(graph, key.past);
  if (stored?.shape.length !== 4 || stored.shape[2] !== past) return undefined;
  const [, groups, , h] = stored.shape as [number, number, number, number];
  if (key.heads % groups !== 0) return undefined;
  const scale = firstScale(trace, element(0, 0, 0, 0));
  for (let row = 0; row < batch; row++) {
    for (let head = 0; head < key.heads; head++) {
      const group = Math.floor(head / (key.heads / groups));
      for (let position = 0; position < past; position++) {
        for (let j = 0; j < h; j++) {
          const origin = stored.origin[((row * groups + group) * past + position) * h + j];
          const at = element(row, head, position, j);
          const term = starts[at]!;
          const same = starts[at + 1]! - term === 1 && terms.origin[term] === origin &&
            terms.coefficient[term] === -1 && terms.offset[term] === 0 && terms.scale[term] === scale;
          if (!same) return undefined;
        }
      }
    }
  }
  return scale;
}

/**
 * The number by which the keys that the model gives out, [B, G, S, h], are multiplied in the operand, at all positions: `by`, where
 * there is a past. Undefined where they are others.
 */
function givenMultiple(
  given: LinearTrace,
  { key: { heads, headSize: h } }: Site,
  { operand, by }: { readonly operand: Omit<KeyOperand, "multiple">; readonly by: number | undefined },
): number | undefined {
  const { batch, tokens, past, trace, element } = operand;
  const [, groups] = given.shape as [number, number];
  const positions = past + tokens;
  if (String(given.shape) !== String([batch, groups, positions, h]) || heads % groups !== 0) return undefined;
  const multiple = by ?? firstScale(trace, element(0, 0, 0, 0)) / firstScale(given, 0);
  if (!Number.isFinite(multiple)) return undefined;
  for (let row = 0; row < batch; row++) {
    for (let head = 0; head < heads; head++) {
      const group = Math.floor(head / (heads / groups));
      for (let position = 0; position < positions; position++) {
        for (let j = 0; j < h; j++) {
          const other = ((row * groups + group) * positions + position) * h + j;
          if (!areMultiples(trace, element(row, head, position, j), { of: given, other, by: multiple })) {
            return undefined;
          }
        }
      }
    }
  }
  return multiple;
}

/** Scale of an element's first term; NaN where it has none. */
function firstScale({ terms, starts }: LinearTrace, element: number): number {
  return starts[element] === starts[element + 1] ? NaN : terms.scale[starts[element]!]!;
}

/** Whether an element is another one times a number, term by term. */
function areMultiples(
  { terms, starts }: LinearTrace,
  element: number,
  { of, other, by }: { readonly of: LinearTrace; readonly other: number; readonly by: number },
): boolean {
  const [start, end] = [starts[element]!, starts[element + 1]!];
  const ahead = of.starts[other]! - start;
  if (of.starts[other + 1]! - ahead !== end) return false;
  for (let at = start; at < end; at++) {
    const like = terms.origin[at] === of.terms.origin[at + ahead] &&
      terms.coefficient[at] === of.terms.coefficient[at + ahead] &&
      isNear(terms.scale[at]!, by * of.terms.scale[at + ahead]!) &&
      isNear(terms.offset[at]!, by * of.terms.offset[at + ahead]!);
    if (!like) return false;
  }
  return true;
}

/** Whether two numbers are equal but for rounding. */
export function isNear(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1e-6 * Math.max(Math.abs(a), Math.abs(b));
}
