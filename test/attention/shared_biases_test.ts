/**
 * ALBERT's layers use one set of matrices; exporters and optimisers may write the biases of some of them in another way, or store some
 * matrices again.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { constantArray } from "../../src/attention/trace/constants.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { oracleExports, oracleReference } from "../support/oracle.ts";
import { seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { TestSession } from "../support/session.ts";

const D = 32;
const original = await loadModel(oracleExports("albert").find(({ file }) => file === "onnx/model.onnx")!.path);
const graph = original.proto.graph!;
const { inputs } = oracleReference("albert").cases[1]!;

/** A node of the second of three layers. */
function node(name: string): NodeProto {
  const found = graph.node.find((each) => each.name.endsWith(`/attention/${name}`));
  if (found === undefined) throw new TypeError(`no node ${name}`);
  return found;
}

/** The model with other nodes in place of some. */
function changed(
  replaced: ReadonlyMap<NodeProto, readonly NodeProto[]>,
  tensors: readonly TensorProto[] = [],
): OnnxModel {
  const nodes = graph.node.flatMap((each) => replaced.get(each) ?? [each]);
  const edited = withFields(graph, { node: nodes, initializer: [...graph.initializer, ...tensors] });
  return { ...original, proto: withFields(original.proto, { graph: edited }) };
}

Deno.test("a bias behind the output matrix that isn't found in every layer is added once in each", async () => {
  const add = node("dense_1/Add");
  // As ONNX Runtime's SkipLayerNormalization has it: no Add, but the same number.
  const model = changed(new Map([[add, [makeNode("Sum", add.input, add.output, { name: add.name })]]]));
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, skipped], [1, []]);
  assertEquals(blocks[0]!.valueOutputExpandedBecause, undefined);
  const random = seededRandom("shared biases");
  for (let round = 0; round < 8; round++) {
    const forms = new Map([[0, randomForm(blocks[0]!, random)]]);
    const made = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(original, made.weights));
    await using session = await TestSession.load(made.rewritten);
    const [expected, actual] = [await dense.run(inputs), await session.run(inputs, made.feeds)];
    for (const [name, { data }] of Object.entries(expected)) {
      const what = `${name}, ${JSON.stringify([...forms.values()])}`;
      assertNear(actual[name]!.data, data, { atol: 1e-4 * largestValue(data), rtol: 0, what });
    }
  }
});

for (const name of ["query", "value"]) {
  Deno.test(`layers of the same matrices with different ${name} biases are left with that as the reason`, () => {
    const add = node(`${name}_1/Add`);
    const product = node(`${name}_1/MatMul`).output[0]!;
    const other = floatTensor("other.bias", [D], Float32Array.from({ length: D }, (_, i) => i / 100));
    const { blocks, skipped } = findAttention(
      changed(new Map([[add, [withFields(add, { input: [product, "other.bias"] })]]]), [other]),
    );
    assertEquals(blocks, []);
    assertEquals(skipped.length, 3);
    for (const { reason } of skipped) {
      assertMatch(
        reason,
        new RegExp(`attention/Softmax and .*attention_1/Softmax use the same matrices with different ${name} biases$`),
      );
    }
  });
}

Deno.test("an output bias inside the product in one layer and behind it in others is left with that as the reason", () => {
  const [product, add, other] = [node("dense_1/MatMul"), node("dense_1/Add"), node("dense_2/Add")];
  const [context, matrix] = product.input as [string, string];
  const bias = add.input.find((name) => name !== product.output[0])!;
  const gemm = [
    makeNode("Shape", [context], ["context.shape"]),
    makeNode("Reshape", [context, "rows"], ["context.rows"]),
    makeNode("Gemm", ["context.rows", matrix, bias], ["output.rows"], { name: "gemm" }),
    makeNode("Reshape", ["output.rows", "context.shape"], add.output),
  ];
  const { blocks, skipped } = findAttention(
    changed(
      new Map([[product, gemm], [add, []], [other, [makeNode("Sum", other.input, other.output)]]]),
      [int64Tensor("rows", [-1, D])],
    ),
  );
  assertEquals(blocks, []);
  for (const { reason } of skipped) {
    assertEquals(reason, "gemm adds a bias to what other nodes project with its matrix alone");
  }
});

/** The key matrix of the second layer stored once more, with its numbers changed or not. */
function keyStoredAgain(change: (numbers: Float32Array) => Float32Array): OnnxModel {
  const product = node("key_1/MatMul");
  const [stream, matrix] = product.input as [string, string];
  const { data } = constantArray(new Graph(graph), matrix, ".");
  const again = floatTensor("again", [D, D], change(Float32Array.from(data)));
  return changed(new Map([[product, [withFields(product, { input: [stream, "again"] })]]]), [again]);
}

Deno.test("layers of one output matrix whose other matrices are copies are one block, and change together", async () => {
  const model = keyStoredAgain((numbers) => numbers);
  const { blocks, skipped } = findAttention(model);
  assertEquals([blocks.length, skipped], [1, []]);
  const random = seededRandom("stored again");
  for (let round = 0; round < 8; round++) {
    const forms = new Map([[0, randomForm(blocks[0]!, random)]]);
    const made = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(original, made.weights));
    await using again = await TestSession.load(rewriteDense(model, made.weights));
    await using session = await TestSession.load(made.rewritten);
    const expected = await dense.run(inputs);
    for (const actual of [await again.run(inputs), await session.run(inputs, made.feeds)]) {
      for (const [name, { data }] of Object.entries(expected)) {
        const what = `${name}, ${JSON.stringify([...forms.values()])}`;
        assertNear(actual[name]!.data, data, { atol: 1e-4 * largestValue(data), rtol: 0, what });
      }
    }
  }
});

Deno.test("layers of one output matrix whose other matrices differ in a number are left alone", () => {
  const model = keyStoredAgain((numbers) => numbers.fill(numbers[D]! + 1e-3, D, D + 1));
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks, []);
  assertEquals(skipped.length, 3);
  for (const { reason } of skipped) {
    assertMatch(reason, /uses its matrix .* too, and isn't part of a block that was found$/);
  }
});
