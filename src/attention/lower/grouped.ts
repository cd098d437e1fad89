/**
 * Products of grouped queries: one of the operands has a letter more, g, over which the other is repeated.
 *
 *     scores    "btkgd,bskd->bkgts"     queries [b, k·g, t, d] times keys [b, k → k·g, s, d], transposed
 *     context   "bkgts,bskd->btkgd"     probabilities [b, k·g, t, s] times values [b, k → k·g, s, d]
 *
 * They become what exporters write who repeat heads: the repeated operand is expanded, heads of a group stand together, and every
 * product has four dimensions.
 *
 * @module
 */
import type { NodeProto } from "../../onnx/node.ts";
import type { Operand, Steps } from "./steps.ts";

/** The letters of a product of two operands. */
interface Letters {
  /** In both operands and the result. */
  readonly common: readonly string[];
  /** In both operands only. */
  readonly summed: readonly string[];
  /** In one operand and the result. */
  readonly free: readonly (readonly string[])[];
  readonly result: readonly string[];
}

/** Lowers a product of grouped queries; undefined where it is none. */
export function groupedProduct(
  steps: Steps,
  operands: readonly [Operand, Operand],
  { common, summed, free, result }: Letters,
): readonly NodeProto[] | undefined {
  const [k] = summed;
  const many = free.findIndex((letters) => letters.length === 2);
  const [column, ...more] = free[1 - many] ?? [];
  const fits = k !== undefined && summed.length === 1 && many !== -1 && column !== undefined && more.length === 0 &&
    common.length > 0 && common.length <= 2 && common.length + 3 === result.length;
  if (!fits) return undefined;
  const [rows, columns] = [operands[many]!, operands[1 - many]!];
  const sizes = new Map([...steps.fixedSizes(rows), ...steps.fixedSizes(columns)]);
  const isFixed = (letter: string): boolean => sizes.has(letter);
  const head = common.length === 1 ? undefined : theOne(common, isFixed) ?? common.at(-1)!;
  // Where all sizes are fixed, positions too, the group is what stands behind its head.
  const group = theOne(free[many]!, isFixed) ?? free[many]!.find((letter) => head && follows(rows, letter, head));
  if (group === undefined || !isFixed(group) || (head !== undefined && !isFixed(head))) return undefined;
  const row = free[many]!.find((letter) => letter !== group)!;
  const batch = common.filter((letter) => letter !== head);
  const stack = [...batch, ...head === undefined ? [] : [head]];
  const [heads, groups] = [sizes.get(group)! * (sizes.get(head ?? "") ?? 1), sizes.get(head ?? "") ?? 1];
  // Of the matrices' own letters, one is a head's size and known; the other is a number of positions.
  const [inner, width] = [k, column].map((letter) => sizes.get(letter));
  if (inner === undefined && width === undefined) return undefined;

  const left = steps.transposed(rows, [...stack, group, row, k]);
  const flat = inner === undefined
    ? reshaped(steps, left, { lead: [0, heads], kept: [stack.length + 1, stack.length + 3] })
    : steps.add("Reshape", [left, steps.integers([0, heads, -1, inner])]);
  const [first, second] = width === undefined ? [column, k] as const : [k, column] as const;
  const size = (width ?? inner)!;
  const right = steps.transposed(columns, [...stack, first, second]);
  const apart = steps.add("Reshape", [right, steps.integers([0, groups, 1, -1, size])]);
  const expanded = steps.add("Expand", [apart, steps.integers([1, 1, heads / groups, 1, 1])]);
  const repeated = steps.add("Reshape", [expanded, steps.integers([0, heads, -1, size])]);
  const turned = width === undefined ? steps.add("Transpose", [repeated], { perm: [0n, 1n, 3n, 2n] }) : repeated;
  const product = steps.multiplied(flat, turned);
  const lead = [0, ...head === undefined ? [] : [groups], heads / groups];
  const split = width === undefined
    ? reshaped(steps, product, { lead, kept: [2, 4] })
    : steps.add("Reshape", [product, steps.integers([...lead, -1, width])]);
  return steps.finish(split, [...stack, group, row, column], result);
}

/** A value in the sizes `lead`, and behind them those of its dimensions from `kept[0]` up to `kept[1]`. */
function reshaped(
  steps: Steps,
  value: string,
  { lead, kept }: { readonly lead: readonly number[]; readonly kept: readonly [number, number] },
): string {
  const [start, end] = kept.map((at) => steps.integers([at])) as [string, string];
  const rest = steps.add("Slice", [steps.add("Shape", [value]), start, end]);
  return steps.add("Reshape", [value, steps.add("Concat", [steps.integers(lead), rest], { axis: 0n })]);
}

/** The only one of some letters that is so. */
function theOne(letters: readonly string[], is: (letter: string) => boolean): string | undefined {
  const found = letters.filter(is);
  return found.length === 1 ? found[0] : undefined;
}

/** Whether a letter stands behind another. */
function follows({ letters }: Operand, letter: string, other: string): boolean {
  return letters[letters.indexOf(letter) - 1] === other;
}
