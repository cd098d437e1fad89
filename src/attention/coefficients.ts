/**
 * Where a graph has numbers that every new token brings along, such as the cosines and sines of its position.
 *
 * @module
 */
import type { CoefficientSource, TableRows } from "./trace/coefficient_sources.ts";
import { stridesOf } from "./trace/value.ts";

/** Numbers of each token that stand in one value. */
export interface Coefficients {
  readonly name: string;
  /** Undefined where they are the value's own; otherwise it is a table, and rows of it are meant. */
  readonly rows: TableRows | undefined;
  /** Dimensions in the order batch (where it has one), positions, and the others, of `width` numbers together. */
  readonly axes: readonly number[];
  /** Whether it has a batch: otherwise all rows have the same numbers. */
  readonly batched: boolean;
  readonly width: number;
  /** Which of those are the coefficients. */
  readonly index: readonly number[];
}

/** One coefficient: an element of a value for each row of the batch and each token. */
export interface CoefficientPlaces {
  readonly source: CoefficientSource;
  /** Flat index at [row][token]. */
  readonly places: readonly (readonly number[])[];
}

/**
 * Where coefficients stand, all of one value together; `order` is the place of each of the given ones there. Undefined where a value
 * isn't laid out by batch and positions.
 */
export function readCoefficients(
  given: readonly CoefficientPlaces[],
): { readonly coefficients: readonly Coefficients[]; readonly order: readonly number[] } | undefined {
  const found = new Map<CoefficientSource, Coefficients & { readonly index: number[]; readonly given: number[] }>();
  for (const [i, { source, places }] of given.entries()) {
    const layout = layoutOf(source, places);
    if (layout === undefined) return undefined;
    const { index, ...rest } = layout;
    const known = found.get(source);
    if (known === undefined) {
      const { name, rows } = source;
      found.set(source, { ...rest, name, rows, index: [index], given: [i] });
    } else if (String(known.axes) !== String(rest.axes) || known.batched !== rest.batched) return undefined;
    else {
      known.index.push(index);
      known.given.push(i);
    }
  }
  const all = [...found.values()];
  const joined = all.flatMap((each) => each.given);
  return {
    coefficients: all.map(({ given: _, ...coefficients }) => coefficients),
    order: given.map((_, i) => joined.indexOf(i)),
  };
}

/** How a value with a coefficient at these places is laid out, the same under both probes. */
function layoutOf(
  { shape, otherShape: other }: CoefficientSource,
  places: readonly (readonly number[])[],
): Omit<Coefficients, "name" | "rows" | "index"> & { readonly index: number } | undefined {
  const strides = stridesOf(shape);
  const [batch, tokens] = [places.length, places[0]!.length];
  const start = places[0]![0]!;
  const axisBy = (step: number, size: number): number => strides.findIndex((s, i) => s === step && shape[i] === size);
  const positions = axisBy(places[0]![1]! - start, tokens);
  const step = batch === 1 ? 0 : places[1]![0]! - start;
  const rows = step === 0 ? -1 : axisBy(step, batch);
  if (positions === -1 || (step !== 0 && rows === -1) || other?.length !== shape.length) return undefined;
  const straight = places.every((row, b) =>
    row.every((place, t) => place === start + b * step + t * strides[positions]!)
  );
  const rest = shape.flatMap((_, i) => i === positions || i === rows ? [] : [i]);
  if (!straight || rest.some((i) => other[i] !== shape[i])) return undefined;
  const width = rest.reduce((product, i) => product * shape[i]!, 1);
  const index = rest.reduce((at, i) => at * shape[i]! + Math.floor(start / strides[i]!) % shape[i]!, 0);
  return { axes: [...rows === -1 ? [] : [rows], positions, ...rest], batched: rows !== -1, width, index };
}
