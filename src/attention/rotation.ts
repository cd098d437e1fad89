/**
 * How a graph turns projected keys into those that it caches: a rotary embedding, of all of a head's numbers or of some, in any
 * order, written out in whatever operators.
 *
 *     number j of a head at position s = Σ coefficient(s) · scale · (projected number + its bias), one term or two
 *
 * Heads may be normed before: then projected numbers are those that the norm has made of them.
 *
 * Coefficients are the same for all heads: cosines and sines of the position's angles, as the graph computes them for the new
 * tokens of a call. They are all that has to be kept of a position, besides what keys are projected from, to make its keys again.
 *
 * @module
 */
import { operatorOf } from "../onnx/node.ts";
import { type CoefficientPlaces, type Coefficients, readCoefficients } from "./coefficients.ts";
import { findKeyNorm, type KeyNorm } from "./key_norm.ts";
import { keysOf } from "./key_layout.ts";
import { readKeyOperand } from "./key_operand.ts";
import {
  cachePlaces,
  makesOwnKeys,
  type OperatorRotation,
  projectedProblem,
  readOperatorKeys,
} from "./operator_keys.ts";
import { readTurned, TermReader, type Turned } from "./rotation_terms.ts";
import { isPlain } from "./rows.ts";
import type { Site } from "./site.ts";
import { readersOf } from "./space.ts";
import type { Identities } from "./trace/identity.ts";
import { LinearTracer } from "./trace/linear.ts";
import type { Tracer } from "./trace/tracer.ts";
import type { AttentionBlock } from "./types.ts";

/** What a site does to its keys. */
export type KeyRotation = GraphRotation | OperatorRotation<GraphRotation>;

/** What the graph does to keys, from the projection to the product with the queries. */
export interface GraphRotation extends Omit<Turned, "identities" | "places"> {
  readonly inside?: undefined;
  /** What each head of the projection goes through first. */
  readonly norm: KeyNorm | undefined;
  /** Where the coefficients of new tokens are found; none where nothing depends on positions. */
  readonly coefficients: readonly Coefficients[];
  /** For each coefficient its place in those, one behind the other. */
  readonly order: readonly number[];
  /** Number of coefficients. */
  readonly count: number;
  /** Equal for sites of one graph whose caches hold the same coefficients for the same positions; empty where there are none. */
  readonly group: string;
}

/** What values are read with. */
export interface RotationReader {
  readonly tracer: Tracer;
  readonly identities: Identities;
}

/** What the graph of a site does to its keys, or why that isn't known. */
function readRotation({ tracer, identities }: RotationReader, site: Site): GraphRotation | string {
  const { graph, key } = site;
  if (key.fromCache) return "another call fills its cache";
  if (key.projection.node === site.fused?.node) return `${operatorOf(site.fused.node)} projects them`;
  const stream = tracer.value(graph, key.projection.input).shape;
  const turned = key.inexact === undefined && (key.order === undefined || !isPlain(key.order));
  if (turned || stream?.length !== 3) {
    return `its input ${key.projection.input} isn't [batch, positions, hidden]`;
  }
  const normed = key.inexact === undefined ? undefined : findKeyNorm(tracer, site, keysOf(site));
  if (typeof normed === "string") return normed;
  const { problem } = readersOf(tracer, site, ["key"], normed?.means);
  if (problem !== undefined) return problem;
  const linear = new LinearTracer(tracer, key.projection.node, normed?.starts);
  const operand = readKeyOperand(tracer, linear, site);
  if (typeof operand === "string") return operand;
  const source = tracer.trace(key.projection.graph, key.projection.node.output[0]!)!;
  const reader = new TermReader(key, { operand, first: source.origin[0]! });
  const read = (coefficient: number): number | undefined => {
    const { source, index } = linear.coefficient(coefficient);
    return identities.coefficients(source)?.[index];
  };
  const rotated = readTurned(reader, read);
  if (rotated === undefined) return "its heads and positions aren't all rotated in the same way";
  const found = readCoefficients(placesOf(linear, rotated));
  if (found === undefined) return "the coefficients of its rotation aren't [batch, positions, numbers]";
  const { identities: numbers, places, ...rest } = rotated;
  const count = places.length;
  const group = count === 0 ? "" : [cachePlaces(identities, site), ...numbers].join(" ");
  return { ...rest, ...found, norm: normed?.norm, count, group };
}

/** What a site's operator does to its keys, and the graph before it; or why that isn't known. */
function readOwnKeys(reader: RotationReader, site: Site): OperatorRotation<GraphRotation> | string {
  const before = site.key.inexact === undefined ? projectedProblem(reader.tracer, site) : readRotation(reader, site);
  if (typeof before === "string") return before;
  if (before !== undefined && before.count > 0) return "its keys are rotated before the operator and in it";
  return readOperatorKeys(reader, site, before);
}

/** What all sites of a block do to their keys, or why those can't be made from z. */
export function describeRotation(
  reader: RotationReader,
  sites: readonly Site[],
): Pick<AttentionBlock, "keyRotation" | "noLatentKeysBecause"> & { readonly rotations?: readonly KeyRotation[] } {
  const read = sites.map((site): KeyRotation | string =>
    makesOwnKeys(site) ? readOwnKeys(reader, site) : readRotation(reader, site)
  );
  const rotations = read.filter((rotation) => typeof rotation !== "string");
  const problem = read.find((rotation) => typeof rotation === "string") ?? conflict(rotations);
  if (problem !== undefined) return { noLatentKeysBecause: problem };
  const [first] = rotations as [KeyRotation];
  const { count } = first;
  const group = count === 0 ? "" : rotations.map((rotation) => rotation.group).join("; ");
  const norm = first.inside ? first.before?.norm : first.norm;
  const normed = norm && (norm.together ? "together" : "by head");
  return { rotations, keyRotation: { coefficients: count, group, ...normed === undefined ? {} : { normed } } };
}

/** Why one site can't read what another has kept; undefined if it can. */
function conflict([first, ...others]: readonly KeyRotation[]): string | undefined {
  const way = (rotation: KeyRotation): string => {
    if (rotation.inside) return `inside, ${rotation.count}, ${rotation.before && way(rotation.before)}`;
    const { norm, terms, gain, bias, multiple } = rotation;
    const numbers = [norm?.bias, gain, bias].map((each) => each && [...each]);
    return JSON.stringify([norm?.epsilon, norm?.centred, norm?.together, numbers, terms, multiple]);
  };
  return others.every((other) => way(other) === way(first!))
    ? undefined
    : "the graph's branches don't rotate its keys in the same way";
}

/** Where the coefficients stand that every row and token has. */
function placesOf(linear: LinearTracer, { places }: Turned): CoefficientPlaces[] {
  return places.map((rows) => ({
    source: linear.coefficient(rows[0]![0]!).source,
    places: rows.map((row) => row.map((number) => linear.coefficient(number).index)),
  }));
}
