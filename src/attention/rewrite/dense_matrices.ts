/**
 * The new matrices of a block's projections, in the order in which the file has rows and columns.
 *
 * @module
 */
import { isEveryIndex, projectionMatrix } from "../matrices.ts";
import type { LocatedBlock } from "../describe.ts";
import type { Site } from "../site.ts";
import type { Projection } from "../trace/projection.ts";
import type { AttentionWeights } from "../types.ts";

/** A projection with its new matrix, d × N. */
export interface Rewritten {
  readonly projection: Projection;
  readonly matrix: Float32Array;
}

/** Every projection node that gets a new matrix, at all sites of a block. */
export function projectionsOf({ sites, twins }: LocatedBlock, ungrouped: boolean): readonly Projection[] {
  const own = sites.flatMap((site) => [
    ...headsOf(ungrouped).filter((name) => !site[name].fromCache).map((name) => site[name].projection),
    site.output.projection,
  ]);
  const all = [...own, ...twins.map(({ projection }) => projection)];
  return [...new Map(all.map((projection) => [projection.node, projection])).values()];
}

function headsOf(ungrouped: boolean): readonly ("query" | "key" | "value")[] {
  return ungrouped ? ["query"] : ["query", "key", "value"];
}

/** The new matrix of every projection node of a block, at all of its sites; each in an array of its own. */
export function rewrittenProjections(
  block: LocatedBlock,
  weights: AttentionWeights,
  { folder, ungrouped, owned }: {
    readonly folder: string;
    readonly ungrouped: boolean;
    /** Whether the weights' own arrays may become the matrices. */
    readonly owned: boolean;
  },
): Rewritten[] {
  const matrices = new Map<Projection["node"], Rewritten>();
  const open = (projection: Projection): Float32Array => {
    let rewritten = matrices.get(projection.node);
    if (rewritten === undefined) {
      const { data, owned } = projectionMatrix(projection, folder);
      rewritten = { projection, matrix: owned ? data : data.slice() };
      matrices.set(projection.node, rewritten);
    }
    return rewritten.matrix;
  };
  /** Takes a matrix that is replaced as a whole as it is, where no other place can ask for it. */
  const taken = (projection: Projection, indices: Int32Array, matrix: Float32Array): boolean => {
    const whole = owned && block.sites.length === 1 && block.twins.length === 0 &&
      !matrices.has(projection.node) && matrix.length === projection.rows * projection.columns &&
      isEveryIndex(indices);
    if (whole) matrices.set(projection.node, { projection, matrix });
    return whole;
  };
  for (const site of block.sites) {
    for (const name of headsOf(ungrouped)) {
      if (site[name].fromCache) continue;
      const { projection, columns } = site[name];
      if (taken(projection, columns, weights[name])) continue;
      const matrix = open(projection);
      for (let r = 0; r < projection.rows; r++) {
        columns.forEach((column, c) =>
          matrix[r * projection.columns + column] = weights[name][r * columns.length + c]!
        );
      }
    }
    const { projection, rows } = site.output;
    if (taken(projection, rows, weights.output)) continue;
    const matrix = open(projection);
    const width = projection.columns;
    rows.forEach((row, i) => matrix.set(weights.output.subarray(i * width, (i + 1) * width), row * width));
  }
  for (const { projection, names } of block.twins) {
    const [{ projection: same }] = names.map((name) => block.sites[0][name]) as [Site["query"]];
    matrices.set(projection.node, { projection, matrix: open(same).slice() });
  }
  return [...matrices.values()];
}
