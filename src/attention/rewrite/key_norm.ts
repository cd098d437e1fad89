/**
 * The norm of keys in the small space. With a head's k̃ of r2 numbers, its key k = k̃ E, and C = I − 11ᵀ/h where the mean is taken off:
 *
 *     norm(k) = (k̃ / √(k̃ M k̃ᵀ / h + ε)) E'        E' = E, or E C where centred        M = E' E'ᵀ
 *
 * so that no key of full size is made for it. Roots are taken in float32, as models take them.
 *
 * @module
 */
import { DataType } from "../../onnx/tensor.ts";
import type { KeyNorm } from "../key_norm.ts";
import { constant } from "./operands.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Heads [B, G, S, r2] divided by what their keys are by the norm. */
export function normedKeys(at: SiteWriter, heads: string, norm: KeyNorm): string {
  const [full, expand] = [heads, normedExpand(at, norm)].map((value) => cast(at, value, DataType.FLOAT)) as [
    string,
    string,
  ];
  const gram = at.matmul(expand, at.transpose(expand, [1, 0], "key.norm.across"), { label: "key.norm.gram" });
  const squares = at.node("Mul", [at.matmul(full, gram, { label: "key.norm.other" }), full], {
    label: "key.norm.squares",
  });
  const mean = at.matmul(squares, shares(at, expand), { label: "key.norm.mean" });
  const epsilon = at.writer.scalar(Math.fround(norm.epsilon), DataType.FLOAT);
  const root = at.node("Sqrt", [at.node("Add", [mean, epsilon], { label: "key.norm.shifted" })], {
    label: "key.norm.root",
  });
  return cast(at, at.node("Div", [full, root], { label: "key.norm" }), at.elementType);
}

/** What makes h numbers of r2, [r2, h], of which the norm has taken the mean off where it is centred. */
export function normedExpand(at: SiteWriter, { centred }: KeyNorm): string {
  const expand = at.factor("key.expand");
  if (!centred) return expand;
  return at.once("centred key.expand", () => {
    const { headSize: h } = at.site.key;
    const values = Float32Array.from({ length: h * h }, (_, i) => (i % (h + 1) === 0 ? 1 : 0) - 1 / h);
    return at.matmul(expand, constant(at, { label: "key.norm.centre", values, shape: [h, h] }), {
      label: "key.expand.centred",
    });
  });
}

/** 1/h for each of the r2 numbers, [r2, 1]: a product with it is a mean in every version of the operators. */
function shares(at: SiteWriter, expand: string): string {
  const shape = at.node("Concat", [at.size(expand, 0), at.writer.integers([1])], {
    label: "key.norm.shape",
    attributes: { axis: 0n },
  });
  const share = at.writer.scalar(Math.fround(1 / at.site.key.headSize), DataType.FLOAT);
  return at.node("Expand", [share, shape], { label: "key.norm.shares" });
}

function cast(at: SiteWriter, value: string, to: number): string {
  return at.elementType === DataType.FLOAT
    ? value
    : at.node("Cast", [value], { label: "key.norm.cast", attributes: { to: BigInt(to) } });
}
