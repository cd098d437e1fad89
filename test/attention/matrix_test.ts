/** Quantised matrices, against numbers worked out by hand from the operators' specifications. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, TensorProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { Graph } from "../../src/onnx/graph.ts";
import type { TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { readMatrix } from "../../src/attention/trace/matrix.ts";

function bytes(name: string, shape: readonly number[], values: readonly number[]): TensorProto {
  const rawData = Uint8Array.from(values);
  return create(TensorProtoSchema, { name, dims: shape.map(BigInt), dataType: DataType.UINT8, rawData });
}

function graphOf(...initializer: TensorProto[]): Graph {
  return new Graph(create(GraphProtoSchema, { initializer }));
}

Deno.test("a transposed matrix is turned upright", () => {
  const graph = graphOf(floatTensor("w", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)));
  const stored = { kind: "plain", name: "w", transposed: true } as const;
  assertEquals([...readMatrix(graph, stored, { rows: 3, columns: 2, folder: "" }).data], [1, 4, 2, 5, 3, 6]);
});

Deno.test("quantised columns have scales and zero points of their own", () => {
  const graph = graphOf(
    bytes("w", [2, 2], [130, 5, 128, 9]),
    floatTensor("scale", [2], Float32Array.of(0.5, 2)),
    bytes("zero", [2], [128, 7]),
  );
  const stored = { kind: "quantised", name: "w", scale: "scale", zeroPoint: "zero" } as const;
  assertEquals([...readMatrix(graph, stored, { rows: 2, columns: 2, folder: "" }).data], [1, -4, 0, 4]);
});

Deno.test("blocks of four bits: low half first, a scale and a zero point for every block", () => {
  // Two columns of three rows in blocks of two: two blocks a column, the last number of each column is padding.
  const packed = bytes("w", [2, 2, 1], [0x3a, 0x0f, 0x81, 0x02]);
  const scales = floatTensor("scales", [4], Float32Array.of(1, 10, 0.5, 100));
  const sizes = { rows: 3, columns: 2, folder: "" };
  const stored = {
    kind: "blocks",
    name: "w",
    scales: "scales",
    bits: 4,
    blockSize: 2,
    packedZeroPoints: true,
    groups: undefined,
  } as const;
  const middle = readMatrix(graphOf(packed, scales), { ...stored, zeroPoints: undefined }, sizes);
  assertEquals([...middle.data], [10 - 8, (1 - 8) / 2, 3 - 8, 0, (15 - 8) * 10, (2 - 8) * 100]);
  const zeros = bytes("zeros", [2], [0x43, 0x21]);
  const given = readMatrix(graphOf(packed, scales, zeros), { ...stored, zeroPoints: "zeros" }, sizes);
  assertEquals([...given.data], [10 - 3, (1 - 1) / 2, 3 - 3, (8 - 1) / 2, (15 - 4) * 10, (2 - 2) * 100]);
  const real = floatTensor("zeros", [4], Float32Array.of(2.5, 4, 1, 0.5));
  const own = { ...stored, zeroPoints: "zeros", packedZeroPoints: false };
  const halves = readMatrix(graphOf(packed, scales, real), own, sizes);
  assertEquals([...halves.data], [10 - 2.5, (1 - 1) / 2, 3 - 2.5, (8 - 1) / 2, (15 - 4) * 10, (2 - 0.5) * 100]);
  const places = int64Tensor("groups", [1, 0, 1]);
  const moved = { ...stored, zeroPoints: undefined, groups: "groups" };
  const reordered = readMatrix(graphOf(packed, scales, places), moved, sizes);
  assertEquals([...reordered.data], [(10 - 8) * 10, (1 - 8) * 100, 3 - 8, 0, (15 - 8) * 10, (2 - 8) * 100]);
});
