/**
 * Further uses of a block's query, key and value matrices, on constants: relative positions that a model projects with the
 * matrices of its tokens (DeBERTa-v3). Exporters may store the matrix a second time. Whatever takes the place of the matrix
 * must take it there too, or the model would contradict itself.
 *
 * @module
 */
import type { Graph } from "../onnx/graph.ts";
import { release } from "../release.ts";
import type { Site } from "./site.ts";
import { constantProjectionOf, type Projection, storedName } from "./trace/projection.ts";
import type { Tracer } from "./trace/tracer.ts";
import { projectionMatrix } from "./matrices.ts";

/** One further use: a product of a constant with the matrix that the named parts are projected with. */
export interface Twin {
  readonly projection: Projection;
  readonly names: readonly ("query" | "key" | "value")[];
}

/** The products of constants with constant matrices in a graph and its subgraphs. */
export function constantProjections(tracer: Tracer, graph: Graph): Projection[] {
  return [...graph.all()].flatMap((scope) =>
    scope.proto.node.flatMap((node) => constantProjectionOf(scope, node, (name) => tracer.value(scope, name)) ?? [])
  );
}

/** Those of `candidates` that use a matrix of the site. */
export function twinsOf(tracer: Tracer, site: Site, candidates: readonly Projection[]): Twin[] {
  return candidates.flatMap((projection): Twin[] => {
    const names = (["query", "key", "value"] as const).filter((name) =>
      !site[name].fromCache && sameMatrix(tracer, site[name].projection, projection)
    );
    // Of parts in nodes of their own, only equal matrices have two.
    const [first] = names;
    if (first === undefined) return [];
    const { node } = site[first].projection;
    return [{ projection, names: names.filter((name) => site[name].projection.node === node) }];
  });
}

function sameMatrix({ folder }: Tracer, a: Projection, b: Projection): boolean {
  if (a.rows !== b.rows || a.columns !== b.columns) return false;
  if (a.graph.scopeOf(storedName(a)) === b.graph.scopeOf(storedName(b)) && storedName(a) === storedName(b)) return true;
  const [left, right] = [projectionMatrix(a, folder), projectionMatrix(b, folder)];
  const same = left.data.every((value, i) => value === right.data[i]);
  for (const { data, owned } of [left, right]) if (owned) release(data);
  return same;
}
