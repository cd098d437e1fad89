/**
 * Biases of attention that uses the same matrices in several places. A block has one set of factors, biases among them, so its places
 * must agree. Of what is added behind the output matrix an exporter may leave an Add in one place (ALBERT's first layer) and put it into
 * the following norm in others: then it stays where it is everywhere.
 *
 * @module
 */
import { nodeName } from "../onnx/node.ts";
import { outputScale } from "./matrices.ts";
import type { Site } from "./site.ts";

type Sites = readonly [Site, ...Site[]];

/** The sites, with biases that all of them share, or why those that can't be left out of the block differ. */
export function withSharedBiases(sites: Sites): Sites | string {
  const [first, ...others] = sites;
  const reduced = {
    queryKey: sites.every((site) => site.queryKeyExpandedBecause === undefined),
    valueOutput: sites.every((site) => site.valueOutputExpandedBecause === undefined),
  };
  for (const other of others) {
    const differs = (what: string): string =>
      `${nodeName(first.anchor)} and ${nodeName(other.anchor)} use the same matrices with different ${what} biases`;
    if (reduced.queryKey && !same(first.query.bias, other.query.bias)) return differs("query");
    if (reduced.valueOutput && !same(valueBias(first), valueBias(other))) return differs("value");
  }
  if (others.every(({ output }) => same(first.output.bias, output.bias))) return sites;
  const inside = sites.find(({ output }) => output.projection.bias !== undefined);
  if (inside !== undefined) {
    return `${nodeName(inside.output.projection.node)} adds a bias to what other nodes project with its matrix alone`;
  }
  return sites.map((site): Site => {
    const { projection } = site.output;
    return { ...site, output: { ...site.output, bias: undefined, result: projection.node.output[0]! } };
  }) as [Site, ...Site[]];
}

/** The value's bias as it reaches the output projection. */
function valueBias(site: Site): Float32Array | undefined {
  return site.value.bias?.map((number) => number * outputScale(site));
}

/** Whether biases are the same to rounding; none is all zeros. */
function same(a: Float32Array | undefined, b: Float32Array | undefined): boolean {
  const length = a?.length ?? b?.length ?? 0;
  for (let i = 0; i < length; i++) {
    const [left, right] = [a?.[i] ?? 0, b?.[i] ?? 0];
    if (!(Math.abs(left - right) <= 1e-6 * Math.max(Math.abs(left), Math.abs(right)))) return false;
  }
  return true;
}
