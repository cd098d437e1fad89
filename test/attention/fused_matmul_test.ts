/** Products into which ONNX Runtime's optimiser put transpositions of their operands, as saved files of its sessions have them. */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { assertExact, changed, node } from "../support/edited_roberta.ts";

interface Moves {
  readonly batch: boolean;
  readonly trans: boolean;
}

const WAYS: readonly Moves[] = [false, true].flatMap((batch) => [false, true].map((trans) => ({ batch, trans })));

/** The Transpose after which a product that moves its operand so reads what it did: [B, H, T, h] as it is stored for that. */
function stored(from: string, to: string, { batch, trans }: Moves): NodeProto {
  const turned = trans ? [0, 1, 3, 2] : [0, 1, 2, 3];
  const perm = batch ? [turned[2]!, turned[0]!, turned[1]!, turned[3]!] : turned;
  return makeNode("Transpose", [from], [to], { attributes: { perm: perm.map(BigInt) } });
}

function product(
  at: NodeProto,
  [left, right]: readonly [Moves, Moves],
  { alpha, stores }: { readonly alpha: number; readonly stores: readonly (0 | 1)[] },
): NodeProto[] {
  const operands = at.input.map((name, side) => stores.includes(side as 0 | 1) ? `${name}.stored` : name);
  const flag = (value: boolean): bigint => value ? 1n : 0n;
  const attributes = {
    alpha,
    transA: flag(left.trans),
    transB: flag(right.trans),
    transBatchA: flag(left.batch),
    transBatchB: flag(right.batch),
  };
  return [
    ...stores.map((side) => stored(at.input[side]!, operands[side]!, [left, right][side]!)),
    makeNode("FusedMatMul", operands, at.output, { name: at.name, domain: "com.microsoft", attributes }),
  ];
}

for (const left of WAYS) {
  for (const right of WAYS) {
    const name = `query ${JSON.stringify(left)}, key and value ${JSON.stringify(right)}`;
    Deno.test(`${name}: scores and context are read through the product's own transpositions`, async () => {
      const plain: Moves = { batch: false, trans: false };
      const model = changed(
        new Map([
          [node("MatMul"), product(node("MatMul"), [left, right], { alpha: 0.7, stores: [0, 1] })],
          [node("MatMul_1"), product(node("MatMul_1"), [plain, right], { alpha: -1.3, stores: [1] })],
        ]),
      );
      const { blocks, skipped } = findAttention(model);
      assertEquals(skipped, []);
      assertEquals(
        blocks.map((block) => [block.queryKeyExpandedBecause, block.valueOutputExpandedBecause]),
        [[undefined, undefined], [undefined, undefined]],
      );
      await assertExact(model);
    });
  }
}

Deno.test("probabilities that the product with the value transposes are no attention's", () => {
  const turned: Moves = { batch: false, trans: true };
  const plain: Moves = { batch: false, trans: false };
  const model = changed(
    new Map([[node("MatMul_1"), product(node("MatMul_1"), [turned, plain], { alpha: 1, stores: [0] })]]),
  );
  assertEquals(findAttention(model).skipped.map(({ reason }) => reason), [
    "its result doesn't reach a product with a value",
  ]);
});
