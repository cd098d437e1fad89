/**
 * Einsum as a matrix product between transpositions and reshapes. What becomes one:
 *
 * | what | such as | as |
 * | --- | --- | --- |
 * | a projection: one operand is a constant | `bld,dnh->blnh`, `bind,hnd->bih` | stream · matrix, letters of a side joined |
 * | a product of stacked matrices: one letter summed, one of each operand kept | `bind,bjnd->bnij` | product over the common letters |
 * | a permutation of one operand | `ijbn->bnij` | Transpose |
 *
 * All others stay Einsum. `…` stands for the leading letters that an operand has beyond the named ones.
 *
 * @module
 */
import { withFields } from "../../onnx/codec.ts";
import { makeNode, nodeName, type NodeProto } from "../../onnx/node.ts";
import { equationOf } from "../trace/equation.ts";
import type { Surroundings } from "./lower.ts";

/** Lowers one Einsum node. */
export function lowerEinsum(node: NodeProto, at: Surroundings): readonly NodeProto[] | undefined {
  const equation = equationOf(node, node.input.map((name) => at.value(name).shape?.length));
  const [a, b, ...more] = equation?.operands ?? [];
  if (equation === undefined || a === undefined || more.length > 0) return undefined;
  const { result } = equation;
  const steps = new Steps(node, at);
  if (b === undefined) {
    if (a.length !== result.length) return undefined;
    return steps.finish(node.input[0]!, a, result);
  }
  const [left, right] = node.input.map((name, i) => ({ name, letters: [a, b][i]! })) as [Operand, Operand];
  const constant = [left, right].map(({ name }) => at.value(name).constant);
  if (constant[0] !== constant[1]) {
    const [stream, matrix] = constant[1] ? [left, right] : [right, left];
    return projection(steps, { stream, matrix, result });
  }
  return constant[0] ? undefined : product(steps, [left, right], result);
}

/** A value with a letter for each dimension. */
interface Operand {
  readonly name: string;
  readonly letters: readonly string[];
}

/** Stream [kept…, summed…] times matrix [summed…, new…]. */
function projection(
  steps: Steps,
  { stream, matrix, result }: {
    readonly stream: Operand;
    readonly matrix: Operand;
    readonly result: readonly string[];
  },
): readonly NodeProto[] | undefined {
  const summed = stream.letters.filter((letter) => matrix.letters.includes(letter));
  const kept = stream.letters.filter((letter) => !summed.includes(letter));
  const made = result.filter((letter) => matrix.letters.includes(letter));
  const fits = summed.length > 0 && kept.length > 0 && made.length > 0 &&
    !made.some((letter) => summed.includes(letter)) &&
    summed.length + made.length === matrix.letters.length && kept.length + made.length === result.length;
  const sizes = steps.sizesOf(matrix);
  if (!fits || sizes === undefined) return undefined;
  const ordered = steps.transposed(stream, [...kept, ...summed]);
  const joined = summed.length === 1 ? ordered : steps.joined(ordered, kept.length, [sizes(summed)]);
  const rows = steps.matrix(matrix, { summed, made, shape: [sizes(summed), sizes(made)] });
  const split = (value: string): string => steps.joined(value, kept.length, made.map((letter) => sizes([letter])));
  const letters = [...kept, ...made];
  const value = made.length === 1 ? steps.multiplied(joined, rows) : split(steps.multiplied(joined, rows));
  return steps.finish(value, letters, result);
}

/** Stacks of matrices over the common letters: [common…, i, k] times [common…, k, j]. */
function product(
  steps: Steps,
  operands: readonly [Operand, Operand],
  result: readonly string[],
): readonly NodeProto[] | undefined {
  const [a, b] = operands.map(({ letters }) => letters) as [readonly string[], readonly string[]];
  const common = result.filter((letter) => a.includes(letter) && b.includes(letter));
  const summed = a.filter((letter) => b.includes(letter) && !result.includes(letter));
  const free = operands.map(({ letters }) =>
    letters.filter((letter) => !common.includes(letter) && !summed.includes(letter))
  );
  const fits = summed.length === 1 && free.every((letters) => letters.length === 1) && common.length > 0 &&
    common.length + 2 === result.length && free.flat().every((letter) => result.includes(letter));
  if (!fits) return undefined;
  // The row letter is the one that comes first in the result: the query's in scores, the probabilities' in a context.
  const swapped = result.indexOf(free[0]![0]!) > result.indexOf(free[1]![0]!);
  const [rows, columns] = swapped ? operands.toReversed() as [Operand, Operand] : operands;
  const [i, j] = (swapped ? free.toReversed() : free).flat() as [string, string];
  const [k] = summed as [string];
  const left = steps.transposed(rows, [...common, i, k]);
  const right = steps.transposed(columns, [...common, k, j]);
  return steps.finish(steps.multiplied(left, right), [...common, i, j], result);
}

/** Nodes in the making. */
class Steps {
  readonly #nodes: NodeProto[] = [];
  readonly #node: NodeProto;
  readonly #at: Surroundings;

  constructor(node: NodeProto, at: Surroundings) {
    this.#node = node;
    this.#at = at;
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
    return perm === undefined ? name : this.#add("Transpose", [name], { perm });
  }

  /** The dimensions behind the first `kept` in other sizes. */
  joined(name: string, kept: number, sizes: readonly number[]): string {
    return this.#add("Reshape", [name, this.#at.integers([...new Array<number>(kept).fill(0), ...sizes])]);
  }

  /** The product, under the node's own name. */
  multiplied(left: string, right: string): string {
    return this.#add("MatMul", [left, right], {}, nodeName(this.#node));
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

  #add(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, readonly bigint[]>> = {},
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
