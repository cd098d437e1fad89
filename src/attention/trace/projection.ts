/**
 * Linear projections: operators that multiply a stream of row vectors by a constant matrix, plain or quantised.
 *
 * @module
 */
import type { Graph } from "../../onnx/graph.ts";
import {
  floatAttribute,
  intAttribute,
  intsAttribute,
  type NodeProto,
  operatorOf,
  tensorAttribute,
  type TensorProto,
} from "../../onnx/node.ts";
import { DataType } from "../../onnx/tensor.ts";
import type { StoredMatrix } from "./matrix.ts";
import type { Value } from "./value.ts";

/** `output = alpha · (stream @ W) + beta · bias`. */
export interface Projection {
  readonly graph: Graph;
  /** The node that makes the output. */
  readonly node: NodeProto;
  /** Name of the row vectors that are multiplied, [..., d]. */
  readonly stream: string;
  /** Name of the same row vectors before they were flattened to [rows, d], where they were; otherwise `stream`. */
  readonly input: string;
  readonly stored: StoredMatrix;
  /** Element type of the result. */
  readonly elementType: number;
  readonly alpha: number;
  /** Name of a bias that the node adds itself. */
  readonly bias: string | undefined;
  readonly beta: number;
  /** d. */
  readonly rows: number;
  /** N. */
  readonly columns: number;
}

type ValueOf = (name: string) => Value;
/** What a kind of projection knows of itself. */
type Found = Omit<Projection, "graph" | "node" | "input" | "alpha" | "bias" | "beta"> & Partial<Projection>;

/** The projection whose output a node makes, or undefined if it makes none. */
export function projectionOf(graph: Graph, node: NodeProto, valueOf: ValueOf): Projection | undefined {
  const found = readers[operatorOf(node)]?.(graph, node, valueOf);
  if (found === undefined) return undefined;
  const input = unflattened(graph, found.stream, valueOf);
  return { graph, node, input, alpha: 1, bias: undefined, beta: 1, ...found };
}

/** The product of a constant with a constant matrix that a node computes, or undefined if it computes none. */
export function constantProjectionOf(graph: Graph, node: NodeProto, valueOf: ValueOf): Projection | undefined {
  const [stream] = node.input;
  if (stream === undefined || !valueOf(stream).constant || (valueOf(stream).shape?.length ?? 0) < 2) return undefined;
  return projectionOf(graph, node, (name) => name === stream ? { ...valueOf(name), constant: false } : valueOf(name));
}

type Reader = (graph: Graph, node: NodeProto, valueOf: ValueOf) => Found | undefined;

const matmul: Reader = (graph, node, valueOf) => {
  const [stream, name] = node.input;
  const shape = name === undefined ? undefined : matrixShape(valueOf(name));
  if (stream === undefined || name === undefined || shape === undefined || valueOf(stream).constant) return undefined;
  const [rows, columns] = shape;
  const stored = { kind: "plain", name, transposed: false } as const;
  return { stream, stored, elementType: elementTypeOf(graph, name), rows, columns };
};

const gemm: Reader = (graph, node, valueOf) => {
  const found = matmul(graph, node, valueOf);
  if (found === undefined || intAttribute(node, "transA", 0) === 1) return undefined;
  const transposed = intAttribute(node, "transB", 0) === 1;
  return {
    ...found,
    stored: { kind: "plain", name: found.stored.name, transposed },
    rows: transposed ? found.columns : found.rows,
    columns: transposed ? found.rows : found.columns,
    alpha: floatAttribute(node, "alpha", 1),
    bias: node.input[2] === "" ? undefined : node.input[2],
    beta: floatAttribute(node, "beta", 1),
  };
};

const fusedMatmul: Reader = (graph, node, valueOf) => {
  const found = gemm(graph, node, valueOf);
  return found && { ...found, bias: undefined };
};

const matmulNBits: Reader = (graph, node, valueOf) => {
  const [stream, name, scales, zeroPoints, groups, bias] = node.input;
  const bits = intAttribute(node, "bits", 4);
  if (stream === undefined || name === undefined || scales === undefined) return undefined;
  // Beside groups ONNX Runtime 1.30 doesn't look at zero points: the file doesn't compute what it says.
  if (groups && zeroPoints) return undefined;
  const constant = valueOf(name).constant && (!groups || valueOf(groups).constant);
  if (!constant || ![2, 4, 8].includes(bits)) return undefined;
  return {
    stream,
    stored: {
      kind: "blocks",
      name,
      scales,
      zeroPoints: zeroPoints || undefined,
      packedZeroPoints: zeroPoints !== undefined && zeroPoints !== "" && valueOf(zeroPoints).integer,
      groups: groups || undefined,
      bits,
      blockSize: intAttribute(node, "block_size", 32),
    },
    elementType: elementTypeOf(graph, scales),
    rows: intAttribute(node, "K", 0),
    columns: intAttribute(node, "N", 0),
    bias: bias || undefined,
  };
};

const matmulBnb4: Reader = (graph, node, valueOf) => {
  const [stream, name, scales] = node.input;
  const code = (["FP4", "NF4"] as const)[intAttribute(node, "quant_type", 1)];
  if (stream === undefined || name === undefined || scales === undefined || code === undefined) return undefined;
  if (!valueOf(name).constant || intAttribute(node, "transB", 1) !== 1) return undefined;
  return {
    stream,
    stored: { kind: "codes", name, scales, code, blockSize: intAttribute(node, "block_size", 64) },
    elementType: elementTypeOf(graph, scales),
    rows: intAttribute(node, "K", 0),
    columns: intAttribute(node, "N", 0),
  };
};

/**
 * Dynamic quantisation, which ends in a Mul:
 *
 *     x → DynamicQuantizeLinear → MatMulInteger(·, Wq) → Cast → Mul ← Mul(scale of x, scale of W)
 *
 * The stream is the float x.
 */
const dynamic: Reader = (graph, node, valueOf) => {
  for (const [a, b] of [node.input, node.input.toReversed()]) {
    const cast = producerOf(graph, a, "Cast");
    const product = producerOf(graph, cast?.input[0], "MatMulInteger");
    const scales = producerOf(graph, b, "Mul");
    const quantise = producerOf(graph, product?.input[0], "DynamicQuantizeLinear");
    if (product === undefined || scales === undefined || quantise === undefined) continue;
    const [, name, , zeroPoint] = product.input;
    const scale = scales.input.find((input) => input !== quantise.output[1]);
    const stream = quantise.input[0];
    const shape = name === undefined ? undefined : matrixShape(valueOf(name));
    if (name === undefined || scale === undefined || stream === undefined || shape === undefined) continue;
    if (!valueOf(scale).constant) continue;
    const [rows, columns] = shape;
    return {
      stream,
      stored: { kind: "quantised", name, scale, zeroPoint: zeroPoint || undefined },
      elementType: elementTypeOf(graph, scale),
      rows,
      columns,
    };
  }
  return undefined;
};

const readers: Readonly<Record<string, Reader>> = {
  "MatMul": matmul,
  "Gemm": gemm,
  "Mul": dynamic,
  "com.microsoft.FusedMatMul": fusedMatmul,
  "com.microsoft.MatMulNBits": matmulNBits,
  "com.microsoft.MatMulBnb4": matmulBnb4,
};

function producerOf(graph: Graph, name: string | undefined, opType: string): NodeProto | undefined {
  const node = name === undefined ? undefined : graph.producer(name);
  return node?.opType === opType ? node : undefined;
}

function matrixShape(value: Value): readonly [number, number] | undefined {
  const [rows, columns, ...more] = value.shape ?? [];
  return value.constant && rows !== undefined && columns !== undefined && more.length === 0
    ? [rows, columns]
    : undefined;
}

/** Exporters copy shared weights by Identity: the name behind. */
export function storedName({ graph, stored }: Projection): string {
  let { name } = stored;
  for (let node = graph.producer(name); node?.opType === "Identity"; node = graph.producer(name)) name = node.input[0]!;
  return name;
}

/**
 * The initializer that a plain matrix is, and whether it lies transposed there; undefined where anything but a copy, a transposition or a
 * widening cast stands between.
 */
export function storedTensor(
  { graph, stored }: Pick<Projection, "graph" | "stored">,
): { readonly tensor: TensorProto; readonly transposed: boolean } | undefined {
  if (stored.kind !== "plain") return undefined;
  let { name, transposed } = stored;
  for (let node = graph.producer(name); node !== undefined; node = graph.producer(name)) {
    if (operatorOf(node) === "Transpose" && String(intsAttribute(node, "perm") ?? [1, 0]) === "1,0") {
      transposed = !transposed;
    } else if (operatorOf(node) !== "Identity" && !isWidening(node)) return undefined;
    name = node.input[0]!;
  }
  const tensor = graph.initializer(name);
  return tensor && { tensor, transposed };
}

function isWidening(node: NodeProto): boolean {
  const to = intAttribute(node, "to", 0);
  return operatorOf(node) === "Cast" && (to === DataType.FLOAT || to === DataType.DOUBLE);
}

/** Before a Gemm, exporters flatten [batch, positions, d] (or more dimensions) to rows: the value before that. */
function unflattened(graph: Graph, stream: string, valueOf: ValueOf): string {
  const node = graph.producer(stream);
  const [before] = node?.input ?? [];
  if (node?.opType !== "Reshape" || before === undefined) return stream;
  const [apart, rows] = [valueOf(before).shape, valueOf(stream).shape];
  return rows?.length === 2 && (apart?.length ?? 0) > 2 && apart?.at(-1) === rows[1] ? before : stream;
}

/** Element type of a constant: that of the stored tensor, of the last Cast, or of the scale that it is multiplied by. */
export function elementTypeOf(graph: Graph, name: string): number {
  const stored = graph.initializer(name);
  if (stored !== undefined) return stored.dataType;
  const node = graph.producer(name);
  if (node?.opType === "Cast") return intAttribute(node, "to", DataType.FLOAT);
  if (node?.opType === "Constant") return tensorAttribute(node, "value")?.dataType ?? DataType.FLOAT;
  if (node?.opType === "DequantizeLinear") return elementTypeOf(graph, node.input[1]!);
  return node === undefined ? DataType.FLOAT : elementTypeOf(graph, node.input[0]!);
}
