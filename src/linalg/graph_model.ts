/**
 * Small ONNX models, encoded by hand: the few bytes that ONNX Runtime needs to run some operators. The fields are those of
 * onnx.proto (ONNX IR specification); shapes are left out, so that any rank and size fits.
 *
 * @module
 */

/** Element types by their number in onnx.proto's `TensorProto.DataType`. */
const ELEMENT_TYPES = { float32: 1, float64: 11 } as const;
/** Element types that values can have. */
export type ElementType = keyof typeof ELEMENT_TYPES;

/** One operator. */
export interface GraphNode {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly output: string;
  /** It is one of ONNX Runtime's own, in the domain com.microsoft. */
  readonly own?: boolean;
  readonly attributes?: Readonly<Record<string, number | readonly number[]>>;
}

/** Operators of one element type, in an order in which they can run. */
export interface SmallGraph {
  readonly type: ElementType;
  readonly inputs: readonly string[];
  readonly nodes: readonly GraphNode[];
  readonly output: string;
}

const IR_VERSION = 8;
const OPSET_VERSION = 17;
/** `AttributeProto.AttributeType`. */
const INT = 2, INTS = 7;

/** The bytes of a model. */
export function encodeModel({ type, inputs, nodes, output }: SmallGraph): Uint8Array {
  const value = (name: string): number[] => [
    ...text(1, name),
    ...message(2, message(1, integer(1, ELEMENT_TYPES[type]))),
  ];
  const graph = [
    ...nodes.flatMap((node) => message(1, encodeNode(node))),
    ...text(2, "graph"),
    ...inputs.flatMap((name) => message(11, value(name))),
    ...message(12, value(output)),
  ];
  const opset = (domain: string, version: number): number[] => message(8, [...text(1, domain), ...integer(2, version)]);
  return new Uint8Array([
    ...integer(1, IR_VERSION),
    ...message(7, graph),
    ...opset("", OPSET_VERSION),
    ...(nodes.some(({ own }) => own) ? opset("com.microsoft", 1) : []),
  ]);
}

function encodeNode({ operator, inputs, output, own = false, attributes = {} }: GraphNode): number[] {
  return [
    ...inputs.flatMap((name) => text(1, name)),
    ...text(2, output),
    ...text(4, operator),
    ...Object.entries(attributes).flatMap(([name, value]) => message(5, encodeAttribute(name, value))),
    ...(own ? text(7, "com.microsoft") : []),
  ];
}

function encodeAttribute(name: string, value: number | readonly number[]): number[] {
  return typeof value === "number"
    ? [...text(1, name), ...integer(3, value), ...integer(20, INT)]
    : [...text(1, name), ...value.flatMap((each) => integer(8, each)), ...integer(20, INTS)];
}

/** Base-128 varint (protobuf encoding specification); negative numbers are those of 64 bits. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  bytes.push(Number(rest));
  return bytes;
}

const integer = (field: number, value: number): number[] => [...varint(field << 3), ...varint(value)];

const message = (field: number, body: readonly number[]): number[] => [
  ...varint((field << 3) | 2),
  ...varint(body.length),
  ...body,
];

const text = (field: number, value: string): number[] => message(field, [...new TextEncoder().encode(value)]);
