/**
 * Weights that a graph rounds each time (models trained for quantisation are written so): what is taken out of it must be what ONNX
 * Runtime makes of them.
 */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { create } from "@bufbuild/protobuf";
import { withFields } from "../../src/onnx/codec.ts";
import { TensorProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { assertExact, changed, node } from "../support/edited_roberta.ts";
import { oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

const D = 32;
/** Halves of the smallest scale, so that some lie between two integers; some beyond what a type holds. */
const numbers = Float32Array.from({ length: D * D }, (_, i) => ((i * 7919) % 401 - 200) / 64);

/** RoBERTa with `numbers` as a value matrix that is rounded before use. */
function rounded(
  { scales, zeroPoint, axis }: {
    readonly scales: readonly number[];
    readonly zeroPoint?: TensorProto;
    readonly axis?: bigint;
  },
): OnnxModel {
  const product = node("value/MatMul");
  const shape = scales.length === 1 ? [] : [scales.length];
  const by = ["scales", ...zeroPoint === undefined ? [] : [zeroPoint.name]];
  const attributes = axis === undefined ? {} : { attributes: { axis } };
  const nodes: NodeProto[] = [
    makeNode("QuantizeLinear", ["numbers", ...by], ["integers"], attributes),
    makeNode("DequantizeLinear", ["integers", ...by], ["rounded"], attributes),
    withFields(product, { input: [product.input[0]!, "rounded"] }),
  ];
  return changed(new Map([[product, nodes]]), {
    tensors: [
      floatTensor("numbers", [D, D], numbers),
      floatTensor("scales", shape, Float32Array.from(scales)),
      ...zeroPoint === undefined ? [] : [zeroPoint],
    ],
  });
}

/** Zero points in bytes. */
function bytes(dataType: number, shape: readonly number[], values: readonly number[]): TensorProto {
  return create(TensorProtoSchema, {
    name: "zero",
    dims: shape.map(BigInt),
    dataType,
    rawData: Uint8Array.from(values),
  });
}

const channels = Array.from({ length: D }, (_, i) => 2 ** -(3 + i % 4));
const CASES = {
  "unsigned bytes, without a zero point": { scales: [1 / 64] },
  "signed bytes by columns": { scales: channels, zeroPoint: bytes(DataType.INT8, [D], new Array(D).fill(0)) },
  "signed bytes by rows": {
    scales: channels,
    zeroPoint: bytes(DataType.INT8, [D], channels.map((_, i) => i - 16)),
    axis: 0n,
  },
  "unsigned bytes with a zero point": {
    scales: [1 / 32],
    zeroPoint: bytes(DataType.UINT8, [], [140]),
  },
} as const;

for (const [what, options] of Object.entries(CASES)) {
  Deno.test(`${what}: the weights taken out are those that ONNX Runtime multiplies by`, async () => {
    const model = rounded(options);
    const { blocks, skipped } = findAttention(model);
    assertEquals([blocks.length, skipped], [2, []]);
    const { weights } = extractWeights(model, blocks[0]!);
    await using before = await TestSession.load(model);
    await using after = await TestSession.load(rewriteDense(model, new Map([[0, weights]])));
    const { inputs } = oracleReference("roberta").cases[1]!;
    const [expected, actual] = [await before.run(inputs), await after.run(inputs)];
    for (const [name, { data }] of Object.entries(expected)) {
      assertNear(actual[name]!.data, data, { atol: 1e-6 * largestValue(data), rtol: 0, what: name });
    }
    await assertExact(model);
  });
}
