/**
 * Keys that com.microsoft.GroupQueryAttention caches: the operator rotates what is projected itself, by tables and a position, or
 * takes keys as they are. Tables that are constants and positions that it counts are known in every later call too; of others the
 * numbers that a token met have to be kept.
 *
 * @module
 */
import { isGroupQuery, readGroupQuery, rotatedNumbers, rotates } from "./group_query.ts";
import { isPlain } from "./rows.ts";
import type { Site } from "./site.ts";
import { readersOf } from "./space.ts";
import type { Identities } from "./trace/identity.ts";
import type { Tracer } from "./trace/tracer.ts";

/** What a site's operator does to its keys. */
export interface OperatorRotation<Before = unknown> {
  readonly inside: true;
  /** What the graph does to them before; undefined where they are no more than projected. */
  readonly before: Before | undefined;
  /** Numbers of a position's rotation that aren't known in later calls: its cosines and sines, or none. */
  readonly count: number;
  /** Equal for sites of one graph whose caches hold the same of those for the same positions; empty where there are none. */
  readonly group: string;
}

/** Why the operator's keys can't be made again where they are no more than projected; undefined if they can. */
export function projectedProblem(tracer: Tracer, site: Site): string | undefined {
  const { graph, key } = site;
  const stream = key.projection.input;
  if (key.order === undefined || !isPlain(key.order) || tracer.value(graph, stream).shape?.length !== 3) {
    return `its input ${stream} isn't [batch, positions, hidden]`;
  }
  return readersOf(tracer, site, ["key"]).problem;
}

/** What a site's operator does to its keys. */
export function readOperatorKeys<Before>(
  { tracer, identities }: { readonly tracer: Tracer; readonly identities: Identities },
  site: Site,
  before: Before | undefined,
): OperatorRotation<Before> {
  const { graph, fused } = site;
  const { rotary } = readGroupQuery(fused!.node);
  if (rotary === undefined) return { inside: true, before, count: 0, group: "" };
  const { cosine, sine, positions } = rotary;
  const known = [cosine, sine].every((table) => tracer.value(graph, table).constant);
  if (known && positions === undefined) return { inside: true, before, count: 0, group: "" };
  const met = [cosine, sine, ...positions === undefined ? [] : [positions]];
  const group = [cachePlaces(identities, site), ...met.map((name) => identities.value(graph, name))];
  return { inside: true, before, count: rotatedNumbers(tracer, graph, rotary), group: group.join(" ") };
}

/** Whether a site's keys are what its operator makes of them: rotated inside, or as they are projected. */
export function makesOwnKeys({ key, fused }: Site): boolean {
  return fused !== undefined && isGroupQuery(fused.node) && (rotates(fused.node) || key.inexact === undefined);
}

/** Equal for sites of a model whose caches hold the same positions in the same places. */
export function cachePlaces(identities: Identities, site: Site): string {
  const { graph, fused } = site;
  const { lengths, total } = fused !== undefined && isGroupQuery(fused.node) ? readGroupQuery(fused.node) : {};
  const told = lengths === undefined || total === undefined ? [] : [lengths, total];
  return [identities.graph(graph), cachedPositions(site), ...told.map((name) => identities.value(graph, name))]
    .join(" ");
}

/** The name of the number of positions that a site's cache holds: some layers may keep fewer than others. */
function cachedPositions({ graph, key, fused, present }: Site): string {
  const past = key.past ?? fused?.past.key;
  const info = past === undefined ? graph.proto.output.find(({ name }) => name === present.key) : graph.input(past);
  const { value, case: kind } = info?.type?.tensorType?.shape?.dim[2]?.value ?? {};
  return kind === undefined || value === "" ? `those of ${info?.name}` : String(value);
}
