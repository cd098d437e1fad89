/**
 * The norm of value heads in the small space: ṽ / √(Σ ṽ² / h + ε), in float32 as models take it.
 *
 * @module
 */
import { intsAttribute } from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import type { HeadNorm } from "../heads.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Heads [batch, positions, heads, ρ], each normed as what it stands for, in h numbers, would be. */
export function writeHeadNorm(at: SiteWriter, heads: string, { epsilon, mean }: HeadNorm): string {
  const float = at.elementType === DataType.FLOAT;
  const cast = (value: string, to: number): string =>
    float ? value : at.node("Cast", [value], { label: "value.norm.cast", attributes: { to: BigInt(to) } });
  const number = (value: number): string => at.writer.scalar(Math.fround(value), DataType.FLOAT);
  const full = cast(heads, DataType.FLOAT);
  const axes = intsAttribute(mean, "axes") === undefined ? [at.writer.integers([-1])] : [];
  const attributes = { keepdims: 1n, ...(axes.length === 0 ? { axes: [-1n] } : {}) };
  const sum = at.node("ReduceSumSquare", [full, ...axes], { label: "value.norm.sum", attributes });
  const size = at.site.value.headSize;
  const average = at.node("Mul", [sum, number(1 / size)], { label: "value.norm.mean" });
  const shifted = at.node("Add", [average, number(epsilon)], { label: "value.norm.shifted" });
  const root = at.node("Sqrt", [shifted], { label: "value.norm.root" });
  return cast(at.node("Div", [full, root], { label: "value.norm" }), at.elementType);
}
