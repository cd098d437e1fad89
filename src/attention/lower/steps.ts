/**
 * Nodes that take the place of one Einsum, in the making.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import { type AttributeValue, makeNode, nodeName, type NodeProto } from "../../onnx/node.ts";
import type { Surroundings } from "./rule.ts";

/** A value with a letter for each dimension. */
export interface Operand {
  readonly name: string;
  readonly letters: readonly string[];
}

/** Nodes in the making. */
export class Steps {
  readonly #nodes: NodeProto[] = [];
  readonly #node: NodeProto;
  readonly #at: Surroundings;

  constructor(node: NodeProto, at: Surroundings) {
    this.#node = node;
    this.#at = at;
  }

  /** Sizes of an operand's letters that don't depend on those of the model's inputs. */
  fixedSizes({ name, letters }: Operand): ReadonlyMap<string, number> {
    const sizes = this.#at.fixedSizes(name);
    return new Map(letters.flatMap((letter, i) => sizes[i] === undefined ? [] : [[letter, sizes[i]]]));
  }

  /** Name of a constant list of integers. */
  integers(values: readonly number[]): string {
    return this.#at.integers(values);
  }

  /** Sizes of a constant's letters, multiplied. */
  sizesOf({ name, letters }: Operand): ((wanted: readonly string[]) => number) | undefined {
    const { shape } = this.#at.value(name);
    return shape &&
      ((wanted) => wanted.reduce((product, letter) => product * shape[letters.indexOf(letter)]!, 1));
  }

  /** The operand with its letters in another order. */
  transposed({ name, letters }: Operand, wanted: readonly string[]): string {
    const perm = permutation(letters, wanted);
    return perm === undefined ? name : this.add("Transpose", [name], { perm });
  }

  /** The dimensions behind the first `kept` in other sizes. */
  joined(name: string, kept: number, sizes: readonly number[]): string {
    return this.add("Reshape", [name, this.#at.integers([...new Array<number>(kept).fill(0), ...sizes])]);
  }

  /** The product, under the node's own name. */
  multiplied(left: string, right: string): string {
    return this.add("MatMul", [left, right], {}, nodeName(this.#node));
  }

  /** A constant as [summed, made]. */
  matrix(
    operand: Operand,
    { summed, made, shape }: {
      readonly summed: readonly string[];
      readonly made: readonly string[];
      readonly shape: readonly [number, number];
    },
  ): string {
    const { name, letters } = operand;
    const perm = permutation(letters, [...summed, ...made]);
    if (perm === undefined && letters.length === 2) return name;
    const target = this.#at.integers(shape);
    return this.#at.shared(name, `rows${shape[0]}.${perm?.join("") ?? ""}`, (value) => {
      if (perm === undefined) return [makeNode("Reshape", [name, target], [value])];
      const moved = this.#at.fresh(`${name}.transposed`);
      const transpose = makeNode("Transpose", [name], [moved], { attributes: { perm } });
      return [transpose, makeNode("Reshape", [moved, target], [value])];
    });
  }

  /** All nodes; the last makes the Einsum's output. */
  finish(name: string, letters: readonly string[], wanted: readonly string[]): readonly NodeProto[] | undefined {
    const perm = permutation(letters, wanted);
    const output = this.#node.output[0]!;
    if (perm !== undefined) {
      return [
        ...this.#nodes,
        makeNode("Transpose", [name], [output], { name: this.#at.fresh(`${output}.transpose`), attributes: { perm } }),
      ];
    }
    const last = this.#nodes.at(-1);
    if (last === undefined) return undefined;
    return this.#nodes.with(-1, withFields(last, { output: [output] }));
  }

  /** Adds a node and returns its output. */
  add(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    name?: string,
  ): string {
    const value = this.#at.fresh(`${this.#node.output[0]}.${opType.toLowerCase()}`);
    this.#nodes.push(makeNode(opType, inputs, [value], { name: name ?? value, attributes }));
    return value;
  }
}

/** The permutation that brings letters into another order; undefined where they are in it. */
function permutation(letters: readonly string[], wanted: readonly string[]): bigint[] | undefined {
  const perm = wanted.map((letter) => BigInt(letters.indexOf(letter)));
  return perm.every((from, to) => from === BigInt(to)) ? undefined : perm;
}
