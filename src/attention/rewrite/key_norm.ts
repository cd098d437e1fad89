/**
 * The norm of keys in the small space. With a head's k̃ of r2 numbers, its key k = k̃ E + b, and C = I − 11ᵀ/h where the mean is taken off:
 *
 *     norm(k) = (k̃' / √(k̃' M k̃'ᵀ / h + ε)) E'        k̃' = (k̃, 1)        E' = (E, b) C        M = E' E'ᵀ
 *
 * (k̃ and E as they are without bias, C = I without centring), so that no key of full size is made for it. A norm of all heads together has
 * the mean of their squares under the root. Roots are taken in float32, as models take them.
 *
 * @module
 */
import { DataType, floatTensor } from "../../onnx/tensor.ts";
import type { KeyNorm } from "../key_norm.ts";
import { firstOfGroups } from "./head_numbers.ts";
import { constant } from "./operands.ts";
import type { SiteWriter } from "./site_writer.ts";

/** Heads k̃' [B, G, S, ·] divided by what their keys are by the norm, from k̃ [B, G, S, r2]. */
export function normedKeys(
  at: SiteWriter,
  heads: string,
  { norm, groups }: { readonly norm: KeyNorm; readonly groups: number },
): string {
  const [full, expand] = [
    norm.bias === undefined ? heads : withOnes(at, heads),
    normedExpand(at, { norm, groups }),
  ].map((value) => cast(at, value, DataType.FLOAT)) as [string, string];
  const across = at.transpose(expand, norm.bias === undefined ? [1, 0] : [0, 2, 1], "key.norm.across");
  const gram = at.matmul(expand, across, { label: "key.norm.gram" });
  const squares = at.node("Mul", [at.matmul(full, gram, { label: "key.norm.other" }), full], {
    label: "key.norm.squares",
  });
  const own = at.matmul(squares, shares(at, full), { label: "key.norm.mean" });
  const mean = norm.together ? meanOfHeads(at, own, groups) : own;
  const epsilon = at.writer.scalar(Math.fround(norm.epsilon), DataType.FLOAT);
  const root = at.node("Sqrt", [at.node("Add", [mean, epsilon], { label: "key.norm.shifted" })], {
    label: "key.norm.root",
  });
  return cast(at, at.node("Div", [full, root], { label: "key.norm" }), at.elementType);
}

/** E': what makes h numbers of k̃', [r2, h], or [G, r2 + 1, h] where every head has a bias. */
export function normedExpand(
  at: SiteWriter,
  { norm: { centred, bias }, groups }: { readonly norm: KeyNorm; readonly groups: number },
): string {
  return at.once("normed key.expand", () => {
    const { headSize: h } = at.site.key;
    const expand = bias === undefined ? at.factor("key.expand") : withBiases(at, bias, groups);
    if (!centred) return expand;
    const values = Float32Array.from({ length: h * h }, (_, i) => (i % (h + 1) === 0 ? 1 : 0) - 1 / h);
    return at.matmul(expand, constant(at, { label: "key.norm.centre", values, shape: [h, h] }), {
      label: "key.expand.centred",
    });
  });
}

/** E over each head's bias, [G, r2 + 1, h]. */
function withBiases(at: SiteWriter, bias: Float32Array, groups: number): string {
  const { headSize: h } = at.site.key;
  const own = constant(at, {
    label: "key.norm.bias",
    values: firstOfGroups(at.site.key, bias, groups),
    shape: [groups, 1, h],
  });
  const expand = at.factor("key.expand");
  const sizes = [at.writer.integers([groups]), at.node("Shape", [expand], { label: "key.expand.shape" })];
  const shape = at.node("Concat", sizes, { label: "key.norm.shape", attributes: { axis: 0n } });
  const repeated = at.node("Expand", [expand, shape], { label: "key.expand.heads" });
  return at.node("Concat", [repeated, own], { label: "key.expand.biased", attributes: { axis: 1n } });
}

/** A 1 behind the numbers of every head. */
function withOnes(at: SiteWriter, heads: string): string {
  const [start, end] = [0, 3].map((axis) => at.writer.integers([axis])) as [string, string];
  const lead = at.node("Slice", [at.node("Shape", [heads], { label: "key.norm.heads" }), start, end], {
    label: "key.norm.lead",
  });
  const shape = at.node("Concat", [lead, at.writer.integers([1])], {
    label: "key.norm.ones.shape",
    attributes: { axis: 0n },
  });
  const ones = at.node("Expand", [at.writer.scalar(1, at.elementType), shape], { label: "key.norm.ones" });
  return at.node("Concat", [heads, ones], { label: "key.norm.biased", attributes: { axis: -1n } });
}

/** 1/h for each of the numbers of a head, [·, 1]: a product with it is a mean in every version of the operators. */
function shares(at: SiteWriter, heads: string): string {
  const shape = at.node("Concat", [at.size(heads, 3), at.writer.integers([1])], {
    label: "key.norm.shares.shape",
    attributes: { axis: 0n },
  });
  const share = at.writer.scalar(Math.fround(1 / at.site.key.headSize), DataType.FLOAT);
  return at.node("Expand", [share, shape], { label: "key.norm.shares" });
}

/** The mean over the heads, [B, 1, S, 1], of a number of each, [B, G, S, 1]. */
function meanOfHeads(at: SiteWriter, own: string, groups: number): string {
  const values = new Float32Array(groups).fill(1 / groups);
  const share = at.writer.fresh("key.norm.heads.shares");
  at.writer.initializer(floatTensor(share, [groups, 1], values));
  const last = at.transpose(own, [0, 2, 3, 1], "key.norm.heads.last");
  const mean = at.matmul(last, share, { label: "key.norm.heads.mean" });
  return at.transpose(mean, [0, 3, 1, 2], "key.norm.together");
}

function cast(at: SiteWriter, value: string, to: number): string {
  return at.elementType === DataType.FLOAT
    ? value
    : at.node("Cast", [value], { label: "key.norm.cast", attributes: { to: BigInt(to) } });
}
