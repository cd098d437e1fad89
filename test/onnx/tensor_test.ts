import { assertEquals, assertThrows } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { TuckerdError } from "../../src/errors.ts";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../../src/onnx/float16.ts";
import { type TensorProto, TensorProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { DataType, floatTensor, int64Tensor, readFloats, readIntegers } from "../../src/onnx/tensor.ts";
import { testSeed } from "../support/seed.ts";

function tensor(dataType: number, count: number, rest: Partial<TensorProto>): TensorProto {
  return create(TensorProtoSchema, { name: "t", dims: [BigInt(count)], dataType, ...rest } as TensorProto);
}

Deno.test("float16 equals the platform's conversion, for every pattern and for random numbers", () => {
  const view = new DataView(new ArrayBuffer(2));
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const decoded = float16ToFloat32(patterns);
  for (const bits of patterns) {
    view.setUint16(0, bits);
    assertEquals(decoded[bits], view.getFloat16(0));
  }
  const seed = testSeed();
  let state = seed;
  const random = (): number => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  const values = Float32Array.from({ length: 20000 }, () => (random() - 0.5) * 2 ** (40 * random() - 24));
  const encoded = float32ToFloat16(Float32Array.of(...values, 65519.9, 65520, -Infinity, 0, -0, 2 ** -25, 2 ** -24));
  [...values, Math.fround(65519.9), 65520, -Infinity, 0, -0, 2 ** -25, 2 ** -24].forEach((value, i) => {
    view.setFloat16(0, value);
    assertEquals(encoded[i], view.getUint16(0), `${value}, seed ${seed}`);
  });
});

Deno.test("bfloat16 keeps the upper half and rounds to nearest even", () => {
  const words = [0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x7f800000, 0xc1200000];
  const values = new Float32Array(Uint32Array.from(words).buffer);
  assertEquals([...float32ToBfloat16(values)], [0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0xc120]);
  assertEquals(float32ToBfloat16(Float32Array.of(NaN))[0], 0x7fc0);
  assertEquals([...bfloat16ToFloat32(Uint16Array.of(0x3f80, 0xc120))], [1, -10]);
});

Deno.test("real numbers are read from raw bytes and typed fields of every type", () => {
  const values = Float32Array.of(1, -2.5, 0.125);
  for (const type of [DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16, DataType.DOUBLE]) {
    assertEquals(readFloats(floatTensor("t", [3], values, type), ""), values);
  }
  assertEquals(readFloats(tensor(DataType.FLOAT, 3, { floatData: [...values] }), ""), values);
  assertEquals(readFloats(tensor(DataType.DOUBLE, 3, { doubleData: [...values] }), ""), values);
  assertEquals(readFloats(tensor(DataType.FLOAT16, 3, { int32Data: [...float32ToFloat16(values)] }), ""), values);
  // Raw data at an odd offset, as in any protobuf file.
  const odd = new Uint8Array(13).subarray(1);
  odd.set(new Uint8Array(values.buffer));
  assertEquals(readFloats(tensor(DataType.FLOAT, 3, { rawData: odd }), ""), values);
});

Deno.test("integers are read from raw bytes and typed fields of every type", () => {
  assertEquals([...readIntegers(int64Tensor("t", [1, -1, 2 ** 40]), "")], [1, -1, 2 ** 40]);
  assertEquals([...readIntegers(tensor(DataType.INT64, 2, { int64Data: [5n, -7n] }), "")], [5, -7]);
  assertEquals([...readIntegers(tensor(DataType.INT32, 2, { int32Data: [5, -7] }), "")], [5, -7]);
  assertEquals([...readIntegers(tensor(DataType.INT8, 2, { rawData: Uint8Array.of(5, 249) }), "")], [5, -7]);
  assertEquals([...readIntegers(tensor(DataType.UINT8, 2, { rawData: Uint8Array.of(5, 249) }), "")], [5, 249]);
  assertEquals([...readIntegers(tensor(DataType.BOOL, 2, { int32Data: [1, 0] }), "")], [1, 0]);
  assertEquals([...readIntegers(tensor(DataType.UINT4, 3, { rawData: Uint8Array.of(0x3f, 0x08) }), "")], [15, 3, 8]);
  assertEquals([...readIntegers(tensor(DataType.INT4, 3, { rawData: Uint8Array.of(0x3f, 0x08) }), "")], [-1, 3, -8]);
});

Deno.test("tensors whose data doesn't fit are refused", () => {
  const kind = (read: () => unknown): string => assertThrows(read, TuckerdError).kind;
  assertEquals(kind(() => readFloats(tensor(DataType.FLOAT, 3, { rawData: new Uint8Array(8) }), "")), "bad-model");
  assertEquals(kind(() => readFloats(tensor(DataType.FLOAT, 3, { floatData: [1] }), "")), "bad-model");
  assertEquals(kind(() => readFloats(tensor(DataType.INT8, 3, { rawData: new Uint8Array(3) }), "")), "bad-model");
  assertEquals(kind(() => readIntegers(tensor(DataType.FLOAT, 3, { rawData: new Uint8Array(12) }), "")), "bad-model");
  assertThrows(() => floatTensor("t", [4], new Float32Array(3)), RangeError);
  assertThrows(() => floatTensor("t", [3], new Float32Array(3), DataType.INT8), TypeError);
});
