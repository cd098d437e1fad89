/**
 * Grouped queries: several query heads that share a key and a value head. A rewritten block takes the first of each group of neighbours
 * for all of it.
 *
 * @module
 */
import type { HeadView } from "./heads.ts";
import type { Site } from "./site.ts";

/** Number of different heads in a view: grouped queries share the same columns. */
export function groupsOf(view: HeadView): number {
  return new Set(Array.from({ length: view.heads }, (_, i) => columnsOf(view, i))).size;
}

/** Why a site's heads aren't grouped as a rewritten block would group them; undefined if they are. */
export function groupProblem({ key, value }: Site): string | undefined {
  const counts = [key, value].map(groupsOf) as [number, number];
  const parts = [["key", key, counts[0]], ["value", value, counts[1]]] as const;
  for (const [name, view, groups] of parts) {
    const repeat = view.heads / groups;
    const first = (i: number): number => Math.floor(i / repeat) * repeat;
    const apart = Array.from({ length: view.heads }, (_, i) => i).find((i) =>
      !Number.isInteger(repeat) || columnsOf(view, i) !== columnsOf(view, first(i))
    );
    if (apart === undefined) continue;
    return `its ${view.heads} query heads don't share its ${groups} ${name} heads in groups of neighbours: ` +
      `the ${name} heads stand in the order ${orderOf(view)}`;
  }
  const [keys, values] = counts;
  if (keys === values || Math.max(keys, values) === key.heads) return undefined;
  return `it has ${keys} key heads and ${values} value heads for ${key.heads} query heads`;
}

/** The key or value head that each query head has, numbered as they come. */
function orderOf(view: HeadView): string {
  const seen: string[] = [];
  return Array.from({ length: view.heads }, (_, i) => {
    const columns = columnsOf(view, i);
    if (!seen.includes(columns)) seen.push(columns);
    return seen.indexOf(columns);
  }).join(", ");
}

function columnsOf({ columns, headSize }: HeadView, head: number): string {
  return String(columns.subarray(head * headSize, (head + 1) * headSize));
}
