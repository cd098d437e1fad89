/** MatMulNBits that adds its own bias: what it computes is what the file with an Add behind every product does. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { oracleFormats, oracleReference } from "../support/oracle.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const file = oracleFormats().find(({ model, format }) => model === "bert" && format === "int4-sym")!;
const { inputs } = oracleReference("bert").cases[0]!;

/** The model with every Add of a constant behind MatMulNBits as the product's own bias. */
function withOwnBiases(model: OnnxModel): OnnxModel {
  const graph = model.proto.graph!;
  const constants = new Set(graph.initializer.map(({ name }) => name));
  const products = new Map(
    graph.node.filter(({ opType }) => opType === "MatMulNBits").map((node) => [node.output[0]!, node]),
  );
  const fused = new Map<NodeProto, NodeProto>();
  for (const add of graph.node.filter(({ opType }) => opType === "Add")) {
    const product = products.get(add.input.find((name) => products.has(name)) ?? "");
    const bias = add.input.find((name) => constants.has(name));
    if (product === undefined || bias === undefined) continue;
    const operands = [...product.input, "", "", ""].slice(0, 5);
    fused.set(add, withFields(product, { input: [...operands, bias], output: add.output }));
    products.delete(product.output[0]!);
  }
  assert(fused.size > 0, "no bias was moved");
  const merged = new Set([...fused.values()].map(({ name }) => name));
  const node = graph.node.flatMap((each) =>
    each.opType === "MatMulNBits" && merged.has(each.name) ? [] : fused.get(each) ?? each
  );
  return { ...model, proto: withFields(model.proto, { graph: withFields(graph, { node }) }) };
}

Deno.test("MatMulNBits with a bias of its own: weights and biases are read", async () => {
  const apart = await loadModel(file.path);
  const model = withOwnBiases(apart);
  const [blocks, expected] = [findAttention(model).blocks, findAttention(apart).blocks];
  assertEquals(blocks.length, expected.length);
  blocks.forEach((block, layer) => {
    const [read, known] = [extractWeights(model, block), extractWeights(apart, expected[layer]!)];
    for (const name of ["query", "key", "value", "output"] as const) {
      assertEquals(read.weights[name], known.weights[name]);
      assertEquals(read.biases[name], known.biases[name]);
    }
    assertEquals([block.queryKeyExpandedBecause, block.valueOutputExpandedBecause], [undefined, undefined]);
  });
});

/** Query, key and value of 2 heads of 8 from one product of 4-bit numbers, whose bias an Add adds. */
function packed(random: Random): OnnxModel {
  const [d, width] = [16, 48];
  const tensor = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: sizeOf(shape) }, () => random() - 0.5));
  const rawData = Uint8Array.from({ length: width * d / 2 }, () => integer(random, 0, 255));
  const quantised = withFields(floatTensor("w", [width, 1, d / 2], new Float32Array(rawData.length)), {
    dataType: DataType.UINT8,
    rawData,
  });
  const sizes = { K: BigInt(d), N: BigInt(width), bits: 4n, block_size: 16n };
  const graph = create(GraphProtoSchema, {
    name: "packed",
    node: [
      makeNode("MatMulNBits", ["x", "w", "scales"], ["product"], {
        name: "packed",
        domain: "com.microsoft",
        attributes: sizes,
      }),
      makeNode("Add", ["product", "bias"], ["qkv"]),
      makeNode("Split", ["qkv", "sizes"], ["q", "k", "v"], { attributes: { axis: -1n } }),
      makeNode("MultiHeadAttention", ["q", "k", "v"], ["context"], {
        domain: "com.microsoft",
        attributes: { num_heads: 2n },
      }),
      makeNode("MatMul", ["context", "w.o"], ["y"]),
    ],
    initializer: [
      quantised,
      floatTensor("scales", [width], Float32Array.from({ length: width }, () => 0.02 + random() / 20)),
      tensor("bias", width),
      tensor("w.o", d, d),
      int64Tensor("sizes", [d, d, d]),
    ],
    input: [tensorInfo("x", DataType.FLOAT, ["batch", "sequence", d])],
    output: [tensorInfo("y", DataType.FLOAT, ["batch", "sequence", d])],
  });
  const opsetImport = [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "", folder: "" };
}

type Run = (
  session: TestSession,
  feeds: Readonly<Record<string, Numbers>>,
) => Promise<Readonly<Record<string, Numbers>>>;

/** Random forms of the model with biases inside, against dense weights in the one that has them apart. */
async function assertSame(apart: OnnxModel, random: Random, run: Run): Promise<void> {
  const model = withOwnBiases(apart);
  const { blocks } = findAttention(model);
  for (let round = 0; round < 12; round++) {
    const forms = new Map(blocks.map((block) => [block.layer, randomForm(block, random)]));
    const made = withRandomFactors(model, forms, random);
    await using reference = await TestSession.load(rewriteDense(apart, made.weights));
    const wanted = await run(reference, {});
    for (const [rewritten, feeds] of [[made.rewritten, made.feeds], [rewriteDense(model, made.weights), {}]] as const) {
      await using session = await TestSession.load(rewritten);
      const actual = await run(session, feeds);
      for (const [name, { data }] of Object.entries(wanted)) {
        const what = `${name}, ${JSON.stringify([...forms.values()])}`;
        assertNear(actual[name]!.data, data, { atol: 1e-4 * largestValue(data), rtol: 0, what });
      }
    }
  }
}

Deno.test("MatMulNBits with a bias of its own: any form at any ranks computes what dense weights and an Add do", async () => {
  const random = seededRandom("biases of MatMulNBits");
  await assertSame(await loadModel(file.path), random, (session, feeds) => session.run(inputs, feeds));
});

Deno.test("query, key and value from one MatMulNBits with a bias: what is kept of it has its bias once", async () => {
  const random = seededRandom("packed biases of MatMulNBits");
  const x = { shape: [2, 5, 16], data: Float32Array.from({ length: 160 }, () => random() * 2 - 1) };
  await assertSame(packed(random), random, (session, feeds) => session.run({}, { ...feeds, x }));
});
