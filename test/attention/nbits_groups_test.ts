/** MatMulNBits whose rows have scales of other blocks than their own (`g_idx`): weights against what ONNX Runtime multiplies with. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear } from "../support/close.ts";
import { integer, seededRandom } from "../support/random.ts";
import { TestSession } from "../support/session.ts";

const [D, HEADS, SIZE, BLOCK] = [64, 2, 32, 16];
const BLOCKS = D / BLOCK;

/** Four matrices of 4 bits. */
function matrices(random: () => number): TensorProto[] {
  const bytes = (name: string, ...shape: number[]): TensorProto =>
    withFields(floatTensor(name, shape, new Float32Array(sizeOf(shape))), {
      dataType: DataType.UINT8,
      rawData: Uint8Array.from({ length: sizeOf(shape) }, () => integer(random, 0, 255)),
    });
  const groups = (name: string): TensorProto =>
    withFields(floatTensor(name, [D], new Float32Array(D)), {
      dataType: DataType.INT32,
      rawData: new Uint8Array(Int32Array.from({ length: D }, () => integer(random, 0, BLOCKS - 1)).buffer),
    });
  return ["q", "k", "v", "o"].flatMap((name) => [
    bytes(`${name}.weights`, D, BLOCKS, BLOCK / 2),
    floatTensor(`${name}.scales`, [D * BLOCKS], Float32Array.from({ length: D * BLOCKS }, () => random() / 20)),
    bytes(`${name}.zeros`, D * BLOCKS / 2),
    groups(`${name}.groups`),
  ]);
}

/** Attention of 2 heads of 32 with the matrices, or the product of one of them alone. */
function model(
  initializer: readonly TensorProto[],
  { only, zeros = false }: { readonly only?: string; readonly zeros?: boolean } = {},
): OnnxModel {
  const product = (name: string, input: string, output: string) =>
    makeNode(
      "MatMulNBits",
      [input, `${name}.weights`, `${name}.scales`, zeros ? `${name}.zeros` : "", `${name}.groups`],
      [output],
      {
        name,
        domain: "com.microsoft",
        attributes: { K: BigInt(D), N: BigInt(D), bits: 4n, block_size: BigInt(BLOCK) },
      },
    );
  const attention = [
    ...["q", "k", "v"].map((name) => product(name, "x", name)),
    makeNode("MultiHeadAttention", ["q", "k", "v"], ["context"], {
      domain: "com.microsoft",
      attributes: { num_heads: BigInt(HEADS) },
    }),
    product("o", "context", "y"),
  ];
  const graph = create(GraphProtoSchema, {
    name: "groups",
    node: only === undefined ? attention : [product(only, "x", "y")],
    initializer: initializer.filter(({ name }) => only === undefined || name.startsWith(`${only}.`)),
    input: [tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D])],
    output: [tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D])],
  });
  const opsetImport = [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "", folder: "" };
}

Deno.test("4-bit matrices with rows in other groups are read as ONNX Runtime does", async () => {
  const tensors = matrices(seededRandom("groups of MatMulNBits"));
  const whole = model(tensors);
  const { blocks, skipped } = findAttention(whole);
  assertEquals([blocks.length, skipped], [1, []]);
  assertEquals([blocks[0]!.heads, blocks[0]!.headSize], [HEADS, SIZE]);
  const { weights } = extractWeights(whole, blocks[0]!);
  const identity = Float32Array.from({ length: D * D }, (_, i) => i % (D + 1) === 0 ? 1 : 0);
  for (const [name, part] of [["q", "query"], ["k", "key"], ["v", "value"], ["o", "output"]] as const) {
    await using session = await TestSession.load(model(tensors, { only: name }));
    const { y } = await session.run({}, { x: { shape: [1, D, D], data: identity } });
    assertNear(weights[part], y!.data, { atol: 1e-6, rtol: 1e-6, what: part });
  }
  // ONNX Runtime takes 8 for zero whatever such a file says.
  assertEquals(findAttention(model(tensors, { zeros: true })).skipped.map(({ reason }) => reason), [
    "the query can't be followed: it comes from MatMulNBits (q) instead of a projection",
  ]);
});
