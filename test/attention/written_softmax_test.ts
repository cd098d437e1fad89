/**
 * A softmax in steps, as ONNX Runtime's optimiser saves float16 models and converters from JAX write it: attention is found at it, and
 * the steps stay in the rewritten graph.
 */
import { assertEquals } from "@std/assert/mod.js";
import { analyse } from "../../src/attention/find.ts";
import { findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { int64Tensor } from "../../src/onnx/tensor.ts";
import { assertExact, changed, node } from "../support/edited_roberta.ts";
import { nestedNumbers, oracleReference } from "../support/oracle.ts";
import { assertNear } from "../support/close.ts";
import { TestSession } from "../support/session.ts";

const axes = { attributes: { axes: [-1n] } };

/** RoBERTa whose first softmax is taken apart. */
function apart(
  { reduce = {}, divide = [makeNode("Div", ["e", "sum"], ["p"], { name: "division" })], maximum = true, bent = "Exp" }:
    {
      readonly reduce?: Parameters<typeof makeNode>[3];
      readonly divide?: readonly NodeProto[];
      readonly maximum?: boolean;
      /** What makes of scores what is summed. */
      readonly bent?: string;
    },
): OnnxModel {
  const softmax = node("Softmax");
  const [scores] = softmax.input as [string];
  const nodes = [
    ...maximum
      ? [
        makeNode("ReduceMax", [scores], ["m"], axes),
        makeNode("Sub", [scores, "m"], ["x"]),
        makeNode(bent, ["x"], ["e"]),
      ]
      : [makeNode(bent, [scores], ["e"])],
    makeNode("ReduceSum", ["e", "last"], ["sum"], reduce),
    ...divide,
  ].map((each) => withFields(each, { output: each.output.map((name) => name === "p" ? softmax.output[0]! : name) }));
  return changed(new Map([[softmax, nodes]]), { tensors: [int64Tensor("last", [3])] });
}

const reciprocal = makeNode("Reciprocal", ["sum"], ["share"]);
const FORMS: Readonly<Record<string, OnnxModel>> = {
  "divided by the sum": apart({}),
  "multiplied by the sum's reciprocal": apart({
    divide: [reciprocal, makeNode("Mul", ["share", "e"], ["p"], { name: "division" })],
  }),
  "without a maximum": apart({ maximum: false }),
};

for (const [what, model] of Object.entries(FORMS)) {
  Deno.test(`a softmax in steps, ${what}: found, exact, and left in its steps`, async () => {
    const { blocks, operators } = findAttention(model);
    assertEquals(blocks.map((block) => [block.queryKeyExpandedBecause, block.valueOutputExpandedBecause]), [
      [undefined, undefined],
      [undefined, undefined],
    ]);
    assertEquals(operators[0], {
      node: "division",
      operator: what.startsWith("multiplied") ? "Mul" : "Div",
      verdict: "found",
      layer: 0,
    });
    await assertExact(model);
    const rewritten = rewriteDense(model, new Map());
    const kinds = (each: OnnxModel): string[] => each.proto.graph!.node.map(({ opType }) => opType).sort();
    assertEquals(kinds(rewritten), kinds(model));
    // It is RoBERTa's own softmax still.
    await using session = await TestSession.load(model);
    const { inputs, outputs } = oracleReference("roberta").cases[1]!;
    for (const [name, { data }] of Object.entries(await session.run(inputs))) {
      assertNear(data, nestedNumbers(outputs[name]!), { atol: 1e-4, rtol: 0, what: name });
    }
  });
}

Deno.test("what is divided by another sum is no softmax", () => {
  const others: Readonly<Record<string, OnnxModel>> = {
    "over another axis": changedAxis(),
    "of numbers that are no exponentials": apart({ bent: "Relu" }),
    "of something else": apart({ divide: [makeNode("Div", ["x", "sum"], ["p"])] }),
  };
  for (const [what, model] of Object.entries(others)) {
    const { blocks } = findAttention(model);
    assertEquals(blocks.map(({ name }) => name), ["roberta.encoder.layer.1.attention"], what);
    assertEquals(analyse(model).lowerings, [], what);
  }
});

/** The sum runs over heads. */
function changedAxis(): OnnxModel {
  const model = apart({});
  const graph = model.proto.graph!;
  const initializer = graph.initializer.map((tensor) => tensor.name === "last" ? int64Tensor("last", [1]) : tensor);
  return { ...model, proto: withFields(model.proto, { graph: withFields(graph, { initializer }) }) };
}
