/**
 * Products of all of a layer's matrices with factors as graphs for ONNX Runtime, which puts the results together where they are made.
 *
 * @module
 */
import type { GraphNode, SmallGraph } from "../linalg/mod.ts";

/** A graph under the name that stands for it. */
export interface NamedGraph {
  readonly name: string;
  make(): SmallGraph;
}

/** Names of what goes in for the matrix of a slot, and for its factor. */
export const weightsOf = (slot: number): string => `w${slot}`;
export const factorOf = (slot: number): string => `u${slot}`;

/**
 * U_sᵀ W_s side by side, r × (S·H·h), from W_s as d × (H·h) and U_sᵀ (r × d).
 *
 * @param turned which of the W_s are given as their transpose
 */
export function hiddenGraph(turned: readonly boolean[]): NamedGraph {
  const products = turned.map((each, slot) => product([factorOf(slot), weightsOf(slot)], part(slot), { transB: each }));
  const join = {
    operator: "Concat",
    inputs: turned.map((_, slot) => part(slot)),
    output: "y",
    attributes: { axis: 1 },
  };
  return { name: `hidden ${turned}`, make: () => graph(turned, [...products, join]) };
}

/**
 * Σ_s c_sk W_s U of every head, d × K × H × r, from W_s as d × H × h and [c_s1 U | … | c_sK U] (h × K·r): one product a matrix for all k.
 *
 * @param turned which of the W_s are given as H × h × d
 * @param count K
 */
export function headsGraph(turned: readonly boolean[], count: number): NamedGraph {
  // each product is added as soon as it is there: its memory is free for the next one
  const products = turned.flatMap((each, slot) => {
    const inputs = [weightsOf(slot), factorOf(slot)];
    const made = each
      ? [product(inputs, `turned${slot}`, { transA: true }), transposition(`turned${slot}`, part(slot), [1, 0, 2])]
      : [product(inputs, part(slot), {})];
    if (slot === 0) return made;
    return [...made, { operator: "Add", inputs: [sum(slot - 1), part(slot)], output: sum(slot) }];
  });
  const nodes = [
    ...products,
    { operator: "Constant", inputs: [], output: "sizes", attributes: { value_ints: [0, 0, count, -1] } },
    { operator: "Reshape", inputs: [sum(turned.length - 1), "sizes"], output: "split" },
    transposition("split", "y", [0, 2, 1, 3]),
  ];
  return { name: `heads ${turned} ${count}`, make: () => graph(turned, nodes) };
}

const part = (slot: number): string => `y${slot}`;
/** Sum of the parts up to a slot. */
const sum = (slot: number): string => slot === 0 ? part(0) : `sum${slot}`;

function graph(turned: readonly boolean[], nodes: readonly GraphNode[]): SmallGraph {
  const inputs = turned.flatMap((_, slot) => [weightsOf(slot), factorOf(slot)]);
  return { type: "float32", inputs, nodes, output: "y" };
}

interface Turned {
  readonly transA?: boolean;
  readonly transB?: boolean;
}

function product(inputs: readonly string[], output: string, { transA = false, transB = false }: Turned): GraphNode {
  if (!transA && !transB) return { operator: "MatMul", inputs, output };
  const attributes = { transA: Number(transA), transB: Number(transB) };
  return { operator: "FusedMatMul", own: true, inputs, output, attributes };
}

function transposition(input: string, output: string, perm: readonly number[]): GraphNode {
  return { operator: "Transpose", inputs: [input], output, attributes: { perm } };
}
