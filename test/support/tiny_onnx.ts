/**
 * Minimal ONNX files for tests, written field by field (protobuf wire format, ONNX IR version 8, opset 17), so that runtime
 * tests need no codec. Field numbers are those of onnx.proto.
 *
 * @module
 */

/** Element types by ONNX's numbers. */
const elementTypes = { float32: 1, int32: 6, int64: 7, bool: 9, float16: 10 } as const;

/** A value of a tiny graph; dimensions are numbers or names. */
export interface TinyValue {
  readonly name: string;
  readonly type?: keyof typeof elementTypes;
  readonly shape: readonly (number | string)[];
}

/** A node of a tiny graph; it has no attributes. */
export interface TinyNode {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** Bytes of an ONNX model with the given values and nodes. */
export function tinyModel(graph: {
  readonly inputs: readonly TinyValue[];
  readonly outputs: readonly TinyValue[];
  readonly nodes: readonly TinyNode[];
}): Uint8Array<ArrayBuffer> {
  const graphBytes = [
    ...graph.nodes.flatMap((node) =>
      message(1, [
        ...node.inputs.flatMap((name) => text(1, name)),
        ...node.outputs.flatMap((name) => text(2, name)),
        ...text(4, node.operator),
      ])
    ),
    ...text(2, "tiny"),
    ...graph.inputs.flatMap((value) => message(11, valueInfo(value))),
    ...graph.outputs.flatMap((value) => message(12, valueInfo(value))),
  ];
  return new Uint8Array([...integer(1, 8), ...message(7, graphBytes), ...message(8, integer(2, 17))]);
}

/** `y = x @ factor`: x [batch, d], factor [d, rank] as a graph input of dynamic rank. */
export function projection(size: number): Uint8Array<ArrayBuffer> {
  return tinyModel({
    inputs: [{ name: "x", shape: ["batch", size] }, { name: "factor", shape: [size, "rank"] }],
    outputs: [{ name: "y", shape: ["batch", "rank"] }],
    nodes: [{ operator: "MatMul", inputs: ["x", "factor"], outputs: ["y"] }],
  });
}

function valueInfo({ name, type = "float32", shape }: TinyValue): number[] {
  const dimensions = shape.flatMap((size) => message(1, typeof size === "number" ? integer(1, size) : text(2, size)));
  return [...text(1, name), ...message(2, message(1, [...integer(1, elementTypes[type]), ...message(2, dimensions)]))];
}

function message(field: number, bytes: readonly number[]): number[] {
  return [...varint(field << 3 | 2), ...varint(bytes.length), ...bytes];
}

function text(field: number, value: string): number[] {
  return message(field, [...new TextEncoder().encode(value)]);
}

function integer(field: number, value: number): number[] {
  return [...varint(field << 3), ...varint(value)];
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 + 128);
  return [...bytes, value];
}
