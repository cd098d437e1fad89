/**
 * Streams that aren't [batch, positions, d]: pictures [batch, height, width, d], positions first, windows, rows without a batch, rows
 * flattened before a Gemm. Each runs in the small space and gives what plain attention gives, row by row.
 */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { chooseForm, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { rowOrder } from "../../src/attention/rows.ts";
import { stridedIndex, stridesOf } from "../../src/attention/trace/value.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear } from "../support/close.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const [D, H, SIZE] = [12, 3, 4];

/** A stream's leading axes: names are dynamic. The attention's rows are the axes in the order `axes`, the first `batchAxes` its batch. */
interface Stream {
  readonly lead: readonly (string | number)[];
  readonly axes: readonly number[];
  readonly batchAxes: number;
  /** Rows are flattened before every product and put apart again behind it. */
  readonly flattened?: true;
}

const STREAMS: Readonly<Record<string, Stream>> = {
  "[batch, positions]": { lead: ["batch", "sequence"], axes: [0, 1], batchAxes: 1 },
  "[positions, batch]": { lead: ["sequence", "batch"], axes: [1, 0], batchAxes: 1 },
  "[1, batch], one position": { lead: [1, "batch"], axes: [1, 0], batchAxes: 1 },
  "[batch, height, width]": { lead: ["batch", "height", "width"], axes: [0, 1, 2], batchAxes: 1 },
  "[batch, 2, 3]": { lead: ["batch", 2, 3], axes: [0, 1, 2], batchAxes: 1 },
  "[height, width, batch]": { lead: ["length", "width", "batch"], axes: [2, 0, 1], batchAxes: 1 },
  "[batch, width, height], read by columns": { lead: ["batch", "width", "height"], axes: [0, 2, 1], batchAxes: 1 },
  "[batch, windows, 4]": { lead: ["batch", "windows", 4], axes: [0, 1, 2], batchAxes: 2 },
  "[batch, rows, 2, columns, 2], in windows": {
    lead: ["batch", "rows", 2, "columns", 2],
    axes: [0, 1, 3, 2, 4],
    batchAxes: 3,
  },
  "[positions], without a batch": { lead: ["sequence"], axes: [0], batchAxes: 0 },
  "[positions, batch], flattened": { lead: ["sequence", "batch"], axes: [1, 0], batchAxes: 1, flattened: true },
  "[batch, 2, 3], flattened": { lead: ["batch", 2, 3], axes: [0, 1, 2], batchAxes: 1, flattened: true },
};

/** x [...lead, d] → attention over its rows, in plain operators or the standard's own → y of the same shape. */
function attentionOn({ lead, axes, batchAxes, flattened }: Stream, random: Random, operator = false): OnnxModel {
  const n = lead.length;
  const moved = axes.map((axis) => lead[axis]!);
  const last = axes.length > batchAxes && moved.slice(batchAxes).every((size) => typeof size === "number")
    ? sizeOf(moved.slice(batchAxes) as number[])
    : -1;
  const tensor = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: sizeOf(shape) }, () => random() - 0.5));
  const perm = (order: readonly number[]) => ({ attributes: { perm: order.map(BigInt) } });
  const project = (name: string, x: string, to: string): NodeProto[] =>
    flattened
      ? [
        makeNode("Reshape", [x, `flat.${name === "o" ? "wide" : "narrow"}`], [`${name}.rows`]),
        makeNode("Gemm", [`${name}.rows`, `w.${name}`, `b.${name}`], [`${name}.product`]),
        makeNode("Reshape", [`${name}.product`, "lead"], [to]),
      ]
      : [
        makeNode("MatMul", [x, `w.${name}`], [`${name}.product`]),
        makeNode("Add", [`${name}.product`, `b.${name}`], [to]),
      ];
  const heads = (name: "q" | "k" | "v"): NodeProto[] => [
    ...project(name, "x", name),
    makeNode("Transpose", [name], [`${name}.moved`], perm([...axes, n])),
    makeNode("Reshape", [`${name}.moved`, "split"], [`${name}.split`]),
    makeNode(
      "Transpose",
      [`${name}.split`],
      [`${name}.heads`],
      perm(name === "k" && !operator ? [0, 2, 3, 1] : [0, 2, 1, 3]),
    ),
  ];
  const graph = create(GraphProtoSchema, {
    name: "attention",
    node: [
      makeNode("Shape", ["x"], ["shape"]),
      makeNode("Slice", ["shape", "zero", "minus"], ["lead.sizes"]),
      makeNode("Gather", ["lead.sizes", "axes"], ["moved.sizes"]),
      makeNode("Concat", ["moved.sizes", "width"], ["moved.shape"], { attributes: { axis: 0n } }),
      makeNode("Concat", ["lead.sizes", "minus"], ["lead"], { attributes: { axis: 0n } }),
      ...(["q", "k", "v"] as const).flatMap(heads),
      ...operator
        ? [makeNode("Attention", ["q.heads", "k.heads", "v.heads"], ["context"], { attributes: { scale: 0.7 } })]
        : [
          makeNode("MatMul", ["q.heads", "k.heads"], ["scores"]),
          makeNode("Mul", ["scores", "scale"], ["scaled"]),
          makeNode("Softmax", ["scaled"], ["probabilities"], { name: "softmax" }),
          makeNode("MatMul", ["probabilities", "v.heads"], ["context"]),
        ],
      makeNode("Transpose", ["context"], ["context.positions"], perm([0, 2, 1, 3])),
      makeNode("Reshape", ["context.positions", "moved.shape"], ["context.moved"]),
      makeNode("Transpose", ["context.moved"], ["joined"], perm([...axes.map((_, axis) => axes.indexOf(axis)), n])),
      ...project("o", "joined", "y"),
    ],
    initializer: [
      ...["q", "k", "v"].flatMap((name) => [tensor(`w.${name}`, D, H * SIZE), tensor(`b.${name}`, H * SIZE)]),
      ...[tensor("w.o", H * SIZE, D), tensor("b.o", D), floatTensor("scale", [], Float32Array.of(0.7))],
      ...[
        int64Tensor("zero", [0]),
        int64Tensor("minus", [-1]),
        int64Tensor("axes", axes),
        int64Tensor("width", [H * SIZE]),
      ],
      int64Tensor("split", [batchAxes === 0 ? 1 : last === -1 ? 0 : -1, last, H, SIZE]),
      ...[int64Tensor("flat.narrow", [-1, D]), int64Tensor("flat.wide", [-1, H * SIZE])],
    ],
    input: [tensorInfo("x", DataType.FLOAT, [...lead, D])],
    output: [tensorInfo("y", DataType.FLOAT, [...lead, D])],
  });
  const opsetImport = [{ domain: "", version: operator ? 23n : 17n }];
  return {
    proto: create(ModelProtoSchema, { irVersion: operator ? 11n : 8n, graph, opsetImport }),
    path: "",
    folder: "",
  };
}

/** A model with another one's matrices and biases. */
function withWeightsOf(source: OnnxModel, model: OnnxModel): OnnxModel {
  const graph = model.proto.graph!;
  const own = new Map(source.proto.graph!.initializer.map((tensor) => [tensor.name, tensor]));
  graph.initializer = graph.initializer.map((tensor) => /^[wb]\./.test(tensor.name) ? own.get(tensor.name)! : tensor);
  return model;
}

/** The rows of a stream as [batch, positions, d], and back. */
function turned({ axes, batchAxes }: Stream, { shape, data }: Numbers, back?: readonly number[]): Numbers {
  const lead = (back ?? shape).slice(0, -1);
  const strides = stridesOf(lead);
  const moved = axes.map((axis) => lead[axis]!);
  const index = stridedIndex(moved, axes.map((axis) => strides[axis]!));
  const result = new Float32Array(data.length);
  index.forEach((row, i) => {
    const [from, to] = back === undefined ? [row, i] : [i, row];
    for (let j = 0; j < D; j++) result[to * D + j] = data[from * D + j]!;
  });
  const [batch, positions] = [sizeOf(moved.slice(0, batchAxes)), sizeOf(moved.slice(batchAxes))];
  return { shape: back ?? [batch, positions, D], data: result };
}

const SUBJECTS = Object.entries(STREAMS).flatMap(([name, stream]) => [
  { name, stream, operator: false },
  { name: `${name}, in one operator`, stream, operator: true },
]);

for (const { name, stream, operator } of SUBJECTS) {
  Deno.test(`${name}: found, and in r2 as plain attention gives it, row by row`, async () => {
    const random = seededRandom(name);
    const model = attentionOn(stream, random, operator);
    const { blocks, skipped } = findAttention(model);
    assertEquals(skipped, []);
    assertEquals(blocks.map((block) => [block.queryKeyExpandedBecause, block.valueOutputExpandedBecause]), [[
      undefined,
      undefined,
    ]]);
    const plain = withWeightsOf(model, attentionOn(STREAMS["[batch, positions]"]!, random));
    for (let round = 0; round < 6; round++) {
      // Wholly in r2 first, then in any form.
      const form = round === 0 ? chooseForm(blocks[0]!, "tucker4", { r3: 4 }) : randomForm(blocks[0]!, random);
      const made = withRandomFactors(model, new Map([[0, form]]), random);
      const sizes = new Map<string, number>();
      const shape = [
        ...stream.lead.map((size) => {
          if (typeof size === "number") return size;
          if (!sizes.has(size)) sizes.set(size, integer(random, 1, 4));
          return sizes.get(size)!;
        }),
        D,
      ];
      const x = { shape, data: Float32Array.from({ length: sizeOf(shape) }, () => random() * 2 - 1) };
      await using reference = await TestSession.load(rewriteDense(plain, made.weights));
      const expected = turned(stream, (await reference.run({}, { x: turned(stream, x) }))["y"]!, shape).data;
      for (
        const rewritten of [
          made.rewritten,
          closedModel(model, new Map([[0, form]]), made),
          rewriteDense(model, made.weights),
        ]
      ) {
        const fed = rewritten === made.rewritten ? { ...made.feeds, x } : { x };
        await using session = await TestSession.load(rewritten);
        const { y } = await session.run({}, fed);
        assertEquals(y!.shape, shape);
        assertNear(y!.data, expected, {
          atol: 1e-4,
          rtol: 1e-4,
          what: `${name}, ${JSON.stringify(form)}, x [${shape}]`,
        });
      }
    }
  });
}

Deno.test("an order of axes is the one that gives the rows, and none is made up", () => {
  const random = seededRandom("orders of rows");
  for (let round = 0; round < 200; round++) {
    const sizes = Array.from({ length: integer(random, 1, 4) }, () => integer(random, 1, 4));
    const axes = sizes.map((_, axis) => ({ axis, key: random() })).sort((a, b) => a.key - b.key).map(({ axis }) =>
      axis
    );
    const moved = axes.map((axis) => sizes[axis]!);
    const strides = stridesOf(sizes);
    const rows = [...stridedIndex(moved, axes.map((axis) => strides[axis]!))];
    const batch = sizeOf(moved.slice(0, integer(random, 0, axes.length)));
    const found = rowOrder(sizes, { rows, batch })!;
    const places = stridedIndex(found.axes.map((axis) => sizes[axis]!), found.axes.map((axis) => strides[axis]!));
    assertEquals([...places], rows);
    assertEquals(sizeOf(found.axes.slice(0, found.batchAxes).map((axis) => sizes[axis]!)), batch);
  }
  assertEquals(rowOrder([2, 4], { rows: [0, 1, 4, 5, 2, 3, 6, 7], batch: 4 }), undefined); // windows that are no axis
  assertEquals(rowOrder([2, 3], { rows: [0, 1, 2], batch: 1 }), undefined); // some of the rows only
  assertEquals(rowOrder([2, 3], { rows: [0, 1, 2, 3, 4, 5], batch: 3 }), undefined); // a batch that is no axis
});

Deno.test("where two axes of the output look alike to the probes, values run expanded, and exactly", async () => {
  const random = seededRandom("axes that look alike");
  // The first axis counts as the batch until its name says otherwise.
  const model = attentionOn({ lead: ["height", "width", "batch"], axes: [2, 0, 1], batchAxes: 1 }, random);
  const [block] = findAttention(model).blocks;
  assertEquals(block!.queryKeyExpandedBecause, undefined);
  assertEquals(block!.valueOutputExpandedBecause, "the sizes of the output can't be told before it is there");
  const form = chooseForm(block!, "tucker4", { r3: 4 });
  const made = withRandomFactors(model, new Map([[0, form]]), random);
  const x = { shape: [3, 4, 2, D], data: Float32Array.from({ length: 24 * D }, () => random() * 2 - 1) };
  await using dense = await TestSession.load(rewriteDense(model, made.weights));
  await using session = await TestSession.load(made.rewritten);
  const [expected, actual] = [await dense.run({}, { x }), await session.run({}, { ...made.feeds, x })];
  assertNear(actual["y"]!.data, expected["y"]!.data, { atol: 1e-4, rtol: 1e-4, what: "expanded values" });
});
