/**
 * Einsum as a matrix product between transpositions and reshapes. What becomes one:
 *
 * | what | such as | as |
 * | --- | --- | --- |
 * | a projection: one operand is a constant | `bld,dnh->blnh`, `bind,hnd->bih` | stream · matrix, letters of a side joined |
 * | a product of stacked matrices: one letter summed, one of each operand kept | `bind,bjnd->bnij` | product over the common letters |
 * | the same for grouped queries (`grouped.ts`) | `btkgd,bskd->bkgts` | product over all heads, one operand repeated |
 * | a permutation of one operand | `ijbn->bnij` | Transpose |
 *
 * All others stay Einsum. `…` stands for the leading letters that an operand has beyond the named ones.
 *
 * @module
 */
import type { NodeProto } from "../../onnx/node.ts";
import { equationOf } from "../trace/equation.ts";
import { groupedProduct } from "./grouped.ts";
import type { Surroundings } from "./rule.ts";
import { type Operand, Steps } from "./steps.ts";

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
  const grouped = groupedProduct(steps, operands, { common, summed, free, result });
  if (grouped !== undefined) return grouped;
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
