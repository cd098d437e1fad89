/**
 * Matrices as their files store them in 16 bits: each number where the description says must be the one that is read the other way, in
 * every form that exporters have for a projection.
 */
import { create } from "@bufbuild/protobuf";
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import { extractWeights, findAttention, type HalfMatrix, MATRICES } from "../../src/attention/mod.ts";
import { storedTensor } from "../../src/attention/trace/projection.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { TuckerdError } from "../../src/errors.ts";
import { bfloat16ToFloat32, float16ToFloat32 } from "../../src/onnx/float16.ts";
import { GraphProtoSchema, TensorProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { type HalfSource, halfSource } from "../../src/onnx/half_source.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, subgraphsOf } from "../../src/onnx/node.ts";
import { DataType, floatTensor, readFloats, tensorShape } from "../../src/onnx/tensor.ts";
import { oracleExports, oracleFormats } from "../support/oracle.ts";
import { retyped } from "../support/retyped.ts";

/** All bytes of a tensor; a piece is gone when the next one comes. */
const bytesIn = (source: HalfSource): number[] => Array.from(source.pieces(), (piece) => [...piece]).flat();

/** The numbers of a matrix, by its description. */
function gathered({ source, rows, columns, index, indexed, rowStride, columnStride }: HalfMatrix): Float32Array {
  const bytes = Uint8Array.from(bytesIn(source));
  const widen = source.format === "float16" ? float16ToFloat32 : bfloat16ToFloat32;
  const stored = widen(new Uint16Array(bytes.buffer));
  assertEquals(stored.length, source.count);
  return Float32Array.from({ length: rows * columns }, (_, at) => {
    const [i, j] = [Math.floor(at / columns), at % columns];
    const [x, y] = indexed === "rows" ? [index[i]!, j] : [i, index[j]!];
    return stored[x * rowStride + y * columnStride]!;
  });
}

/** What was met on the way, so that no form goes untested. */
const met = new Set<string>();

function note(halves: Readonly<Record<string, HalfMatrix>>): void {
  const { query, key, value } = halves;
  if (query!.source === key!.source && key!.source === value!.source) met.add("packed");
  for (const { index, source, rows, columns, rowStride } of Object.values(halves)) {
    if (rowStride === 1) met.add("transposed");
    if (source.count > rows * columns) met.add("a part");
    if (new Set(index).size < index.length) met.add("repeated");
    if (index.some((place, i) => i > 0 && place < index[i - 1]!)) met.add("another order");
  }
}

async function checkModel(path: string, type: number | undefined): Promise<void> {
  const original = await loadModel(path);
  if (type !== undefined && original.proto.graph!.node.some((node) => [...subgraphsOf(node)].length > 0)) return;
  const model = type === undefined ? original : retyped(original, DataType.FLOAT, type);
  checkBlocks(model, path);
  if (path.includes("/bert/") && type !== undefined) checkBlocks(withTransposedWeights(model), `${path}, transposed`);
}

/** Matrices of MatMuls stored the other way around, as linear layers of PyTorch are, with a Transpose behind. */
function withTransposedWeights({ proto, ...file }: OnnxModel): OnnxModel {
  const graph = proto.graph!;
  const matrices = new Set(graph.node.filter(({ opType }) => opType === "MatMul").map(({ input }) => input[1]!));
  const turned = graph.initializer.filter(({ name }) => matrices.has(name));
  const node = turned.map(({ name }) =>
    makeNode("Transpose", [`${name}.T`], [name], { attributes: { perm: [1n, 0n] } })
  );
  const initializer = graph.initializer.map((tensor) => {
    if (!turned.includes(tensor)) return tensor;
    const [rows, columns] = tensorShape(tensor) as [number, number];
    const numbers = readFloats(tensor, file.folder);
    const across = Float32Array.from(numbers, (_, i) => numbers[i % rows * columns + Math.floor(i / rows)]!);
    return floatTensor(`${tensor.name}.T`, [columns, rows], across, tensor.dataType);
  });
  return {
    ...file,
    proto: withFields(proto, { graph: withFields(graph, { node: [...node, ...graph.node], initializer }) }),
  };
}

function checkBlocks(model: OnnxModel, path: string): void {
  for (const block of findAttention(model).blocks) {
    using extracted = extractWeights(model, block);
    const found = MATRICES.map((name) => [name, extracted.weights.halves!(name)] as const);
    const halves = Object.fromEntries(found.filter(([, matrix]) => matrix !== undefined)) as Record<string, HalfMatrix>;
    for (const [name, matrix] of Object.entries(halves)) {
      assertEquals(gathered(matrix), extracted.weights[name as "query"], `${path}, ${block.name}, ${name}`);
    }
    if (Object.keys(halves).length === 4) note(halves);
    met.add(`${path.includes("oracle_formats") ? "format" : "export"}, ${Object.keys(halves).length} of 4`);
  }
}

const MODELS = ["bert", "gpt2", "bloom", "gptj", "llama", "llama-gqa", "falcon-mqa", "qwen3", "vit", "codegen"];

Deno.test("16-bit matrices are where they are said to be, whatever the export", async () => {
  for (const model of MODELS) {
    for (const { path } of oracleExports(model)) {
      await checkModel(path, DataType.FLOAT16);
      if (model === "bert") await checkModel(path, DataType.BFLOAT16);
    }
  }
  for (const { path, format } of oracleFormats()) {
    await checkModel(path, format.startsWith("external") ? DataType.FLOAT16 : undefined);
  }
  for (
    const form of ["packed", "transposed", "a part", "repeated", "another order", "export, 4 of 4", "format, 4 of 4"]
  ) {
    assert(met.has(form), `no model has ${form}: ${[...met].sort()}`);
  }
  assert(met.has("format, 0 of 4"), "float32 and quantised matrices have no 16 bits");
});

Deno.test("a stored tensor is seen through copies, transpositions and widening casts, and nothing else", () => {
  const initializer = [floatTensor("w", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6), DataType.FLOAT16)];
  const node = [
    makeNode("Identity", ["w"], ["same"]),
    makeNode("Transpose", ["same"], ["turned"], { attributes: { perm: [1n, 0n] } }),
    makeNode("Transpose", ["turned"], ["again"]),
    makeNode("Transpose", ["w"], ["unmoved"], { attributes: { perm: [0n, 1n] } }),
    makeNode("Cast", ["turned"], ["wide"], { attributes: { to: BigInt(DataType.FLOAT) } }),
    makeNode("Cast", ["turned"], ["narrow"], { attributes: { to: BigInt(DataType.BFLOAT16) } }),
    makeNode("Mul", ["w", "w"], ["squared"]),
  ];
  const graph = new Graph(create(GraphProtoSchema, { initializer, node }));
  const seen = (name: string, transposed = false): boolean | undefined => {
    const found = storedTensor({ graph, stored: { kind: "plain", name, transposed } });
    if (found !== undefined) assertEquals(found.tensor.name, "w");
    return found?.transposed;
  };
  assertEquals(["w", "same", "turned", "again", "wide"].map((name) => seen(name)), [false, false, true, false, true]);
  assertEquals(["w", "turned"].map((name) => seen(name, true)), [true, false]);
  assertEquals(["unmoved", "narrow", "squared", "nothing"].map((name) => seen(name)), Array(4).fill(undefined));
  const quantised = { kind: "quantised", name: "w", scale: "s", zeroPoint: undefined } as const;
  assertEquals(storedTensor({ graph, stored: quantised }), undefined);
});

Deno.test("patterns come from raw bytes, typed fields and ranges of files, at any place in them", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const patterns = Uint16Array.of(0x3c00, 0xc123, 0x0001, 0x7bff, 0x8000);
    const raw = new Uint8Array(patterns.buffer);
    const file = new Uint8Array(17).fill(0xee);
    file.set(raw, 3);
    await Deno.writeFile(`${folder}/data`, file);
    const shared = { name: "w", dims: [5n], dataType: DataType.FLOAT16 };
    const external = (entries: Record<string, string>) => ({
      ...shared,
      dataLocation: 1,
      externalData: Object.entries({ location: "data", ...entries }).map(([key, value]) => ({ key, value })),
    });
    const bytesOf = (tensor: Parameters<typeof create<typeof TensorProtoSchema>>[1]): number[] =>
      bytesIn(halfSource(create(TensorProtoSchema, tensor!), folder)!);
    assertEquals(bytesOf({ ...shared, rawData: file.subarray(3, 13) }), [...raw]);
    assertEquals(bytesOf({ ...shared, int32Data: [...patterns] }), [...raw]);
    assertEquals(bytesOf(external({ offset: "3", length: "10" })), [...raw]);
    assertEquals(bytesOf(external({ offset: "3" })), [...raw]);
    const refused = (tensor: Parameters<typeof bytesOf>[0], why: string): void => {
      assertThrows(() => bytesOf(tensor), TuckerdError, why);
    };
    refused({ ...shared, rawData: raw.subarray(0, 8) }, "should have 10 bytes or values, but has 8");
    refused({ ...shared, int32Data: [1, 2] }, "should have 5 bytes or values, but has 2");
    refused(external({ offset: "3", length: "8" }), "should have 10 bytes or values, but has 8");
    refused(external({ offset: "9" }), "ends 2 bytes before the tensor at offset 9 does");
    refused(external({ location: "missing" }), "can't be opened");
    assertEquals(halfSource(floatTensor("w", [1], Float32Array.of(1)), folder), undefined);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
