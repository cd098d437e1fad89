/** Movement operators against ONNX Runtime: random chains of them, on numbers that say where they come from. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { withFields } from "../../src/onnx/codec.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { ProbeRun } from "../../src/attention/trace/evaluate.ts";
import { PROBE, SECOND_PROBE } from "../../src/attention/trace/probe.ts";
import { Tracer } from "../../src/attention/trace/tracer.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { testSeed } from "../support/seed.ts";

/** Builds a chain of random movements of one input. */
class Chain {
  readonly nodes: NodeProto[] = [];
  readonly constants: TensorProto[] = [];
  name = "x";
  shape: readonly number[] = [2, 3, 4, 5];

  constructor(readonly random: (below: number) => number) {}

  /** Adds one random movement; the shape of its result is worked out here, independently of the tracer. */
  step(): void {
    const { shape, random } = this;
    const rank = shape.length;
    const axis = random(rank);
    const signed = random(2) === 0 ? axis : axis - rank;
    const size = shape[axis]!;
    const moves: (() => void)[] = [
      () => {
        const perm = shape.map((_, i) => i).sort(() => random(3) - 1);
        this.#add("Transpose", [], perm.map((i) => shape[i]!), { perm: perm.map(BigInt) });
      },
      () =>
        this.#add("Unsqueeze", [[signed]], random(2) === 0 && signed === axis ? shape.toSpliced(axis, 0, 1) : shape),
      () => this.#add("Reshape", [[-1, size]], [sizeOf(shape) / size, size]),
      () => this.#add("Reshape", [[0, ...shape.slice(1, -1), -1]], rank === 1 ? [...shape, 1] : shape),
      () => {
        const from = random(size);
        const length = 1 + random(size - from);
        const shorter = shape.with(axis, length);
        this.#add("Slice", [[from - size], [from + length], [signed], [1]], from + length <= size ? shorter : shape);
      },
      () => this.#add("Slice", [[size - 1], [-size - 1], [signed], [-1]], shape),
      () => this.#add("Slice", [[0], [2 ** 53], [signed], [2]], shape.with(axis, Math.ceil(size / 2))),
      () => {
        if (size < 2) return;
        const first = 1 + random(size - 1);
        const other = `${this.name}.rest`;
        this.#add("Split", [[first, size - first]], shape.with(axis, first), { axis: BigInt(signed) }, [other]);
      },
      () => {
        const index = [0, size - 1, -1];
        this.#add("Gather", [index], shape.with(axis, 3), { axis: BigInt(signed) });
      },
      () => this.#add("Expand", [[2, ...shape]], [2, ...shape]),
      () => this.#add("Tile", [shape.map((_, i) => i === axis ? 2 : 1)], shape.with(axis, 2 * size)),
      () => this.#add("Concat", "self", shape.with(axis, 2 * size), { axis: BigInt(signed) }),
      () => this.#add("Flatten", [], [sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))], { axis: BigInt(axis) }),
      () => {
        const width = 1 + random(rank);
        const tuples = Array.from({ length: 3 }, () => shape.slice(0, width).map((n) => random(2 * n) - n));
        const indices = withFields(int64Tensor("", tuples.flat()), { dims: [3n, BigInt(width)] });
        this.#add("GatherND", [indices], [3, ...shape.slice(width)]);
      },
    ];
    const chosen = random(moves.length);
    if (chosen === 1) {
      this.#add("Unsqueeze", [[axis]], shape.toSpliced(axis, 0, 1));
      return;
    }
    if (sizeOf(shape) > 2000 && chosen >= 9 && chosen <= 11) return;
    moves[chosen]!();
  }

  #add(
    opType: string,
    steering: readonly (readonly number[] | TensorProto)[] | "self",
    shape: readonly number[],
    attributes: Record<string, bigint | bigint[]> = {},
    more: string[] = [],
  ): void {
    const inputs = [this.name];
    if (steering === "self") inputs.push(this.name);
    else {
      for (const values of steering) {
        const name = `c${this.constants.length}`;
        const tensor = "dims" in values ? withFields(values, { name }) : int64Tensor(name, values);
        this.constants.push(tensor);
        inputs.push(tensor.name);
      }
    }
    this.name = `v${this.nodes.length}`;
    this.nodes.push(makeNode(opType, inputs, [this.name, ...more], { attributes }));
    this.shape = shape;
  }
}

Deno.test("random chains of movements trace to the elements that ONNX Runtime moves", async () => {
  const seed = testSeed();
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * below);
  };
  for (let trial = 0; trial < 60; trial++) {
    const chain = new Chain(random);
    for (let i = 0; i < 6; i++) chain.step();
    if (chain.nodes.length === 0) continue;
    const output = tensorInfo(chain.name, DataType.FLOAT, chain.shape);
    const graph = create(GraphProtoSchema, {
      name: "chain",
      node: chain.nodes,
      initializer: chain.constants,
      input: [tensorInfo("x", DataType.FLOAT, [2, 3, 4, 5])],
      output: [output],
    });
    const proto = create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport: [{ version: 17n }] });
    const model: OnnxModel = { proto, path: "", folder: "" };
    const what = `seed ${seed}, trial ${trial}: ${chain.nodes.map(({ opType }) => opType)}`;

    const index = new Graph(graph);
    const tracer = new Tracer([new ProbeRun(index, PROBE, ""), new ProbeRun(index, SECOND_PROBE, "")], "");
    const trace = tracer.trace(index, chain.name)!;
    await using session = await TestSession.load(model);
    const x = { shape: [2, 3, 4, 5], data: Float32Array.from({ length: 120 }, (_, i) => i) };
    const result = (await session.run({}, { x }))[chain.name]!;
    assertEquals(trace.shape, [...result.shape], what);
    assertEquals(trace.shape, [...chain.shape], what);
    assertEquals([...trace.origin], Array.from(result.data), what);
  }
});

Deno.test("sizes of resized and sampled images are ONNX Runtime's, and what doesn't fit together has none", async () => {
  const half = floatTensor("half", [4], Float32Array.of(1, 1, 0.5, 1.5));
  const nodes = [
    makeNode("Resize", ["x", "", "half"], ["scaled"]),
    makeNode("Resize", ["x", "", "", "sizes"], ["sized"]),
    makeNode("GridSample", ["x", "grid"], ["sampled"]),
  ];
  const outputs = ["scaled", "sized", "sampled"];
  const graph = create(GraphProtoSchema, {
    name: "images",
    node: nodes,
    initializer: [half, int64Tensor("sizes", [2, 3, 7, 9])],
    input: [
      tensorInfo("x", DataType.FLOAT, [2, 3, 4, 5]),
      tensorInfo("grid", DataType.FLOAT, [2, 6, 7, 2]),
      tensorInfo("mystery", DataType.FLOAT, [2]),
    ],
    output: outputs.map((name) => tensorInfo(name, DataType.FLOAT, ["a", "b", "c", "d"])),
  });
  const model: OnnxModel = {
    proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport: [{ version: 17n }] }),
    path: "",
    folder: "",
  };
  const index = new Graph(graph);
  const run = new ProbeRun(index, PROBE, "");
  await using session = await TestSession.load(model);
  const zeros = (shape: number[]): Numbers => ({ shape, data: new Float32Array(sizeOf(shape)) });
  const results = await session.run({}, { x: zeros([2, 3, 4, 5]), grid: zeros([2, 6, 7, 2]), mystery: zeros([2]) });
  for (const name of outputs) assertEquals(run.value(index, name).shape, [...results[name]!.shape], name);

  const unknown = new Graph(create(GraphProtoSchema, {
    name: "unknown",
    node: [
      makeNode("Mystery", ["x"], ["m"]),
      makeNode("Add", ["m", "one"], ["shifted"]),
      makeNode("Add", ["m", "x"], ["added"]),
      makeNode("Concat", ["one", "one"], ["joined"], { attributes: { axis: -1n } }),
      makeNode("Range", ["nothing", "nothing", "nothing"], ["range"]),
    ],
    initializer: [floatTensor("one", [], Float32Array.of(1)), floatTensor("nothing", [], Float32Array.of(NaN))],
    input: [tensorInfo("x", DataType.FLOAT, [2, 3])],
  }));
  const shapes = ["shifted", "added", "joined", "range"].map((name) =>
    new ProbeRun(unknown, PROBE, "").value(unknown, name).shape
  );
  assertEquals(shapes, [undefined, [2, 3], undefined, undefined]);
});
