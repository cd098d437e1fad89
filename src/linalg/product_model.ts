/**
 * One-operator ONNX models, encoded by hand: the few bytes that ONNX Runtime needs to run a matrix product. The fields
 * are those of onnx.proto (ONNX IR specification); shapes are left out, so that any rank and size fits.
 *
 * @module
 */

/** Element types by their number in onnx.proto's `TensorProto.DataType`. */
const ELEMENT_TYPES = { float32: 1, float64: 11 } as const;
/** Element types that a product can have. */
export type ElementType = keyof typeof ELEMENT_TYPES;

/** Which of the operands are transposed before the product. */
export interface Transposes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

const IR_VERSION = 8;
const OPSET_VERSION = 17;
const ATTRIBUTE_TYPE_INT = 2;

/**
 * The model `y = op(a) @ op(b)`.
 *
 * float32 uses com.microsoft's FusedMatMul, which transposes without a copy and broadcasts leading dimensions. float64 has
 * no such kernel: Gemm where an operand is transposed (matrices only), MatMul otherwise.
 */
export function productModel(type: ElementType, { transposeA, transposeB }: Transposes): Uint8Array {
  const transposed = transposeA || transposeB;
  const fused = type === "float32" && transposed;
  const operator = fused ? "FusedMatMul" : transposed ? "Gemm" : "MatMul";
  const attribute = (name: string): number[] =>
    message(5, [...text(1, name), ...integer(3, 1), ...integer(20, ATTRIBUTE_TYPE_INT)]);
  const node = [
    ...text(1, "a"),
    ...text(1, "b"),
    ...text(2, "y"),
    ...text(4, operator),
    ...(transposeA ? attribute("transA") : []),
    ...(transposeB ? attribute("transB") : []),
    ...(fused ? text(7, "com.microsoft") : []),
  ];
  const value = (name: string): number[] => [
    ...text(1, name),
    ...message(2, message(1, integer(1, ELEMENT_TYPES[type]))),
  ];
  const graph = [
    ...message(1, node),
    ...text(2, "product"),
    ...message(11, value("a")),
    ...message(11, value("b")),
    ...message(12, value("y")),
  ];
  const opset = (domain: string, version: number): number[] => message(8, [...text(1, domain), ...integer(2, version)]);
  return new Uint8Array([
    ...integer(1, IR_VERSION),
    ...message(7, graph),
    ...opset("", OPSET_VERSION),
    ...(fused ? opset("com.microsoft", 1) : []),
  ]);
}

/** Base-128 varint (protobuf encoding specification). */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  bytes.push(value);
  return bytes;
}

const integer = (field: number, value: number): number[] => [...varint(field << 3), ...varint(value)];

const message = (field: number, body: readonly number[]): number[] => [
  ...varint((field << 3) | 2),
  ...varint(body.length),
  ...body,
];

const text = (field: number, value: string): number[] => message(field, [...new TextEncoder().encode(value)]);
