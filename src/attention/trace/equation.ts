/**
 * The equation of an Einsum: which dimension of which operand is which of the result.
 *
 * @module
 */
import { type NodeProto, stringAttribute } from "../../onnx/node.ts";

/** Letters of operands and result; the leading dimensions that `...` stands for have numbers. */
export interface Equation {
  readonly operands: readonly (readonly string[])[];
  readonly result: readonly string[];
}

/**
 * Reads a node's equation for operands of these ranks. Undefined where the result isn't named, a letter comes twice in one place, or the rank that
 * `…` needs isn't known.
 */
export function equationOf(node: NodeProto, ranks: readonly (number | undefined)[]): Equation | undefined {
  const text = stringAttribute(node, "equation") ?? "";
  const [left, right, ...more] = text.replaceAll(" ", "").split("->");
  if (left === undefined || right === undefined || more.length > 0) return undefined;
  const terms = left.split(",");
  if (terms.length !== ranks.length) return undefined;
  const hidden = terms.map((term, i) => term.includes("...") ? (ranks[i] ?? NaN) - (term.length - 3) : 0);
  const most = Math.max(...hidden);
  if (!hidden.every((count) => count === 0 || count === most)) return undefined;
  const leading = Array.from({ length: most }, (_, i) => String(i));
  const lettersOf = (term: string): string[] => {
    const [before, after] = term.split("...");
    return after === undefined ? [...term] : [...before!, ...leading, ...after];
  };
  const equation = { operands: terms.map(lettersOf), result: lettersOf(right) };
  const twice = [...equation.operands, equation.result].some((letters) => new Set(letters).size < letters.length);
  const known = equation.result.every((letter) => equation.operands.some((letters) => letters.includes(letter)));
  return twice || !known ? undefined : equation;
}
