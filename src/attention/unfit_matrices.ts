/**
 * Matrices that can't be taken out of the graph, or can't stand in one tensor.
 *
 * @module
 */
import { dataTypeName } from "../onnx/tensor.ts";
import type { Site } from "./site.ts";
import { constantProblem } from "./trace/constants.ts";
import type { StoredMatrix } from "./trace/matrix.ts";

/** Why the matrices of a site can't be decomposed; undefined if they can. */
export function matrixProblem(site: Site): string | undefined {
  const projections = [
    ...(["query", "key", "value"] as const).filter((name) => !site[name].fromCache)
      .map((name) => ({ name, ...site[name].projection })),
    { name: "output", ...site.output.projection },
  ];
  for (const { name, graph, stored } of projections) {
    for (const tensor of tensorsOf(stored)) {
      const problem = constantProblem(graph, tensor);
      if (problem !== undefined) return `its ${name} matrix can't be read: ${tensor} ${problem}`;
    }
  }
  const types = new Set(projections.map(({ elementType }) => elementType));
  if (types.size === 1) return undefined;
  return `its matrices are of different types: ${
    projections.map(({ name, elementType }) => `${name} ${dataTypeName(elementType)}`).join(", ")
  }`;
}

/** Names of the values that a stored matrix is read from. */
function tensorsOf(stored: StoredMatrix): string[] {
  const of = (...names: (string | undefined)[]): string[] => names.filter((name) => name !== undefined);
  switch (stored.kind) {
    case "plain":
      return [stored.name];
    case "quantised":
      return of(stored.name, stored.scale, stored.zeroPoint);
    case "blocks":
      return of(stored.name, stored.scales, stored.zeroPoints, stored.groups);
    case "codes":
      return of(stored.name, stored.scales);
  }
}
