/** Scores put together from several products, as LUKE's of words and entities are: left, and the reason says what they are made of. */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { changed, node, SELF } from "../support/edited_roberta.ts";

const [query, key] = node("MatMul").input as [string, string];
const scores = node("MatMul").output[0]!;

/** RoBERTa whose first position is met by one query and the others by another, made by the given nodes. */
function model(made: readonly NodeProto[], otherQuery: string): OnnxModel {
  const product = (operand: string, from: string, to: string, output: string): NodeProto[] => [
    makeNode("Slice", [key, from, to, "axis"], [`${output}.key`]),
    makeNode("MatMul", [operand, `${output}.key`], [output], { name: output }),
  ];
  return changed(
    new Map([[node("MatMul"), [
      ...made,
      ...product(query, "start", "one", "first"),
      ...product(otherQuery, "one", "end", "others"),
      makeNode("Concat", ["first", "others"], [scores], { name: "join", attributes: { axis: 3n } }),
    ]]]),
    {
      tensors: [
        int64Tensor("start", [0]),
        int64Tensor("one", [1]),
        int64Tensor("end", [1000]),
        int64Tensor("axis", [3]),
        floatTensor("other.weight", [32, 32], Float32Array.from({ length: 1024 }, (_, i) => (i % 7 - 3) / 20)),
      ],
    },
  );
}

Deno.test("queries of their own for some positions: the reason names the join and every query", () => {
  const [stream] = node("query/MatMul").input as [string];
  const [, split] = node("Reshape").input as [string, string];
  const own = [
    makeNode("MatMul", [stream, "other.weight"], ["other.all"], { name: "other" }),
    makeNode("Reshape", ["other.all", split], ["other.heads"]),
    makeNode("Transpose", ["other.heads"], ["other.query"], { attributes: { perm: [0n, 2n, 1n, 3n] } }),
  ];
  const { blocks, skipped } = findAttention(model(own, "other.query"));
  assertEquals(blocks.length, 1);
  assertEquals(skipped, [{
    node: `${SELF}/Softmax`,
    operator: "Softmax",
    reason: `its scores are joined by join from 2 products of 2 queries (${SELF}/query/MatMul, other), ` +
      "an attention's come from one",
  }]);
});

Deno.test("one query that meets its keys in pieces", () => {
  const { skipped } = findAttention(model([], query));
  assertEquals(skipped.map(({ reason }) => reason), [
    `its scores are joined by join from 2 products of one query (${SELF}/query/MatMul), an attention's come from one`,
  ]);
});

Deno.test("one product joined with a constant column is a product still: what is wrong with its key is the reason", () => {
  const { skipped } = findAttention(changed(
    new Map([[node("MatMul"), [
      makeNode("Slice", [key, "start", "end", "axis"], ["some"]),
      makeNode("MatMul", [query, "some"], ["first"], { name: "first" }),
      makeNode("Concat", ["first", "sink"], [scores], { name: "join", attributes: { axis: 3n } }),
    ]]]),
    {
      tensors: [
        ...["start", "end", "axis"].map((name, i) => int64Tensor(name, [[1], [1000], [3]][i]!)),
        floatTensor("sink", [2, 4, 3, 1], new Float32Array(24)),
      ],
    },
  ));
  assertEquals(skipped.map(({ reason }) => reason), [
    "the key can't be followed: 8 matrices of 2 positions don't fit the 6 rows of its projection",
  ]);
});
