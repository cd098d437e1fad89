/**
 * com.microsoft.FusedMatMul, alpha · op(a) @ op(b): ONNX Runtime's optimiser puts transpositions of operands into a product.
 *
 *     transBatch   [T, ...batches, h] → [...batches, T, h]
 *     trans        [..., h, T] → [..., T, h], after that
 *
 * @module
 */
import { intAttribute, type NodeProto } from "../../onnx/node.ts";
import { pickElements, type Trace } from "./trace.ts";
import { stridedIndex, stridesOf } from "./value.ts";

/** What a product does to one of its operands; nothing where both are false. */
export interface OperandMoves {
  /** The first dimension is taken behind the others but the last. */
  readonly batchesFirst: boolean;
  /** The last two dimensions change places. */
  readonly transposed: boolean;
}

/** What a product does to its left and right operand: nothing, unless it is a FusedMatMul. */
export function operandMoves(node: NodeProto): readonly [OperandMoves, OperandMoves] {
  const read = (side: "A" | "B"): OperandMoves => ({
    batchesFirst: node.opType === "FusedMatMul" && intAttribute(node, `transBatch${side}`, 0) === 1,
    transposed: node.opType === "FusedMatMul" && intAttribute(node, `trans${side}`, 0) === 1,
  });
  return [read("A"), read("B")];
}

/** The shape in which an operand is multiplied. */
export function movedShape(shape: readonly number[], { batchesFirst, transposed }: OperandMoves): readonly number[] {
  const moved = batchesFirst ? withBatchesFirst(shape) : shape;
  return transposed ? [...moved.slice(0, -2), moved.at(-1)!, moved.at(-2)!] : moved;
}

/** The elements of [T, ...batches, h] as [...batches, T, h]. */
export function batchesFirst(trace: Trace): Trace {
  const shape = withBatchesFirst(trace.shape);
  return pickElements(trace, shape, stridedIndex(shape, withBatchesFirst(stridesOf(trace.shape))));
}

function withBatchesFirst<T>(axes: readonly T[]): readonly T[] {
  return [...axes.slice(1, -1), axes[0]!, axes.at(-1)!];
}
