/**
 * Feed-forward networks in every architecture and format: found where they are and nowhere else, and written as two matrices (or another
 * one) without a change of the outputs. Expected sizes are those of the models' configurations.
 */
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import {
  extractFeedForward,
  type FeedForwardForm,
  type FeedForwardSlot,
  findFeedForward,
  rewriteFeedForward,
} from "../../src/attention/feed_forward/mod.ts";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import type { NodeProto } from "../../src/onnx/node.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { Architecture } from "../support/encoders.ts";
import { nestedNumbers, oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

/** d, m and the number of networks by config.json; gated networks have a third matrix. */
const NETWORKS: Readonly<Record<string, { d: number; m: number; count: number; gated?: true }>> = {
  albert: { d: 32, m: 48, count: 1 }, // one set of weights for all layers
  bert: { d: 48, m: 96, count: 3 },
  bloom: { d: 32, m: 128, count: 2 },
  codegen: { d: 48, m: 64, count: 2 },
  distilbert: { d: 64, m: 128, count: 2 },
  "falcon-mqa": { d: 32, m: 128, count: 2 },
  gemma2: { d: 24, m: 48, count: 2, gated: true },
  gpt2: { d: 36, m: 144, count: 3 },
  gptj: { d: 48, m: 192, count: 2 },
  llama: { d: 48, m: 88, count: 2, gated: true },
  "llama-gqa": { d: 48, m: 88, count: 2, gated: true },
  qwen3: { d: 24, m: 48, count: 2, gated: true },
  roberta: { d: 32, m: 64, count: 2 },
  vit: { d: 32, m: 48, count: 2 },
};

/** Share of the largest output: rounding in 16 bits differs, and where activations were quantised, they aren't any more. */
function tolerance(file: string): number {
  return file.includes("dynamic") ? 1e-1 : /fp16|qdq/.test(file) ? 3e-2 : 1e-5;
}

const SUBJECTS = [
  ...Object.keys(NETWORKS).flatMap((model) => oracleExports(model))
    .map((exported) => ({ ...exported, reference: oracleReference(exported.model) })),
  ...oracleFormats(),
];

for (const { model: name, file, path } of SUBJECTS) {
  Deno.test(`${name}/${file}: every feed-forward network is found, by layer`, async () => {
    const { d, m, count, gated } = NETWORKS[name]!;
    const model = await loadModel(path);
    const found = findFeedForward(model);
    assertEquals(found.map(({ layer, index }) => [layer, index]), Array.from({ length: count }, (_, i) => [i, 0]));
    for (const { layer, matrices } of found) {
      assertEquals(
        matrices,
        [
          { name: "fc_in", rows: d, columns: m },
          ...(gated ? [{ name: "fc_up", rows: d, columns: m } as const] : []),
          { name: "fc_out", rows: m, columns: d },
        ],
        `layer ${layer}`,
      );
      for (const { name, rows, columns } of matrices) {
        const { data: matrix } = extractFeedForward(model, { layer, index: 0, matrix: name });
        assertEquals(matrix.length, rows * columns);
        assert(matrix.every(Number.isFinite));
      }
    }
  });
}

for (const [name, { m }] of Object.entries(NETWORKS)) {
  const first = oracleExports(name)[0]!;
  const subjects = SUBJECTS.filter(({ path, model, file }) =>
    path === first.path || (model === name && (file.includes("merged") || !file.startsWith("onnx")))
  );
  for (const { file, path, reference } of subjects) {
    Deno.test(`${name}/${file}: as two matrices, or as another one, networks compute what they did`, async () => {
      const model = await loadModel(path);
      const inputs = reference.cases.find((entry) => entry.name === "single")!.inputs;
      await using original = await TestSession.load(model);
      const expected = await original.run(inputs);
      const forms = findFeedForward(model).flatMap(({ layer, index, matrices }) =>
        matrices.map(({ name }, i): FeedForwardForm => ({
          layer,
          index,
          matrix: name,
          form: (layer + i) % 2 === 0 ? "pair" : "dense",
        }))
      );
      const source = {
        factors: "initializers",
        // W = W·1, which a pair runs as it runs any two matrices.
        tensors: ({ layer, index, matrix, part }: FeedForwardForm & { readonly part: string }) => {
          const { data } = extractFeedForward(model, { layer, index, matrix });
          const columns = matrix === "fc_out" ? data.length / m : m;
          return part === "b"
            ? { shape: [columns, columns], data: identity(columns) }
            : { shape: [data.length / columns, columns], data };
        },
      } as unknown as Parameters<typeof rewriteFeedForward>[2]["source"];
      await using session = await TestSession.load(rewriteFeedForward(model, model, { forms, source }).model);
      const actual = await session.run(inputs);
      for (const [output, { data }] of Object.entries(expected)) {
        const atol = tolerance(file) * largestValue(data);
        assertNear(actual[output]!.data, data, { atol, rtol: 0, what: output });
      }
    });
  }
}

Deno.test("networks written as Einsum become two matrices beside rewritten attention, the others stay as they are", async () => {
  const architecture = new Architecture("einsum");
  const opened = await architecture.open("torchscript-17-eager");
  const { model, blocks } = opened;
  const found = findFeedForward(model);
  assertEquals(
    found.map(({ layer, matrices }) => [layer, matrices]),
    [0, 1].map((layer) => [layer, [
      { name: "fc_in", rows: 16, columns: 24 },
      { name: "fc_out", rows: 24, columns: 16 },
    ]]),
  );
  const forms = (["fc_in", "fc_out"] as const).map((matrix): FeedForwardForm => ({
    layer: 0,
    index: 0,
    matrix,
    form: "pair",
  }));
  const source = {
    factors: "initializers",
    tensors: ({ part, ...place }: FeedForwardSlot) => {
      const { data } = extractFeedForward(model, place);
      const columns = place.matrix === "fc_in" ? 24 : 16;
      return part === "b"
        ? { shape: [columns, columns], data: identity(columns) }
        : { shape: [data.length / columns, columns], data };
    },
  } as const;
  const attention = rewriteDense(model, new Map([[1, extractWeights(model, blocks[1]!).weights]]));
  for (const [target, left] of [[model, 12], [attention, 8]] as const) {
    const rewritten = rewriteFeedForward(model, target, { forms, source }).model;
    const nodes = rewritten.proto.graph!.node;
    assertEquals(nodes.filter(({ opType }) => opType === "Einsum").length, left);
    assertEquals(nodes.filter(({ name }) => name.startsWith("tuckerd/")).length, 4);
    await using session = await TestSession.load(rewritten);
    for (const { name, inputs, outputs } of architecture.reference.cases) {
      const { last_hidden_state: actual } = await session.run(inputs);
      assertNear(actual!.data, nestedNumbers(outputs["last_hidden_state"]!), { atol: 1e-4, rtol: 0, what: name });
    }
  }
});

/** Nodes of a model's graph and its branches. */
function nodesOf(model: OnnxModel): NodeProto[] {
  return [...new Graph(model.proto.graph!).all()].flatMap(({ proto }) => proto.node);
}

Deno.test("the gate is fc_in and its partner fc_up, as the exporter's names say", async () => {
  for (const { path, file } of oracleExports("llama")) {
    const model = await loadModel(path);
    const forms: FeedForwardForm[] = ["fc_in", "fc_up", "fc_out"].map((matrix) => ({
      layer: 1,
      index: 0,
      matrix: matrix as FeedForwardForm["matrix"],
      form: "dense",
    }));
    const { model: rewritten } = rewriteFeedForward(model, model, { forms, source: { factors: "inputs" } });
    const before = new Map(nodesOf(model).map((node) => [node.output[0], node.name]));
    const replaced = nodesOf(rewritten).filter((node) => node.name.startsWith("tuckerd/"));
    const pairs = replaced.map((node) => `${node.name.split("/")[2]} ${before.get(node.output[0])}`);
    // A merged decoder has each in both of its branches.
    assertEquals(pairs.length, file.includes("merged") ? 6 : 3, file);
    assertEquals(
      [...new Set(pairs)].sort(),
      [
        "fc_in /model/layers.1/mlp/gate_proj/MatMul",
        "fc_out /model/layers.1/mlp/down_proj/MatMul",
        "fc_up /model/layers.1/mlp/up_proj/MatMul",
      ],
      file,
    );
  }
});

Deno.test("a pair adds one MatMul; a Gemm becomes two MatMuls and an Add; slots have symbolic ranks", async () => {
  for (const [name, gemm] of [["bert", false], ["gpt2", true]] as const) {
    const model = await loadModel(oracleExports(name)[0]!.path);
    const forms: FeedForwardForm[] = [{ layer: 1, index: 0, matrix: "fc_out", form: "pair" }];
    const { model: rewritten, slots } = rewriteFeedForward(model, model, { forms, source: { factors: "inputs" } });
    const change = difference(counts(model), counts(rewritten));
    assertEquals(change, gemm ? { Gemm: -1, MatMul: 2, Add: 1 } : { MatMul: 1 }, name);
    const { d, m } = NETWORKS[name]!;
    assertEquals(slots.map(({ name, shape }) => [name, shape]), [
      ["tuckerd.layer1.fc_out.a", [m, "layer1.fc_out.r"]],
      ["tuckerd.layer1.fc_out.b", ["layer1.fc_out.r", d]],
    ]);
    const inputs = rewritten.proto.graph!.input.map((input) => input.name);
    assertEquals(inputs.slice(-2), ["tuckerd.layer1.fc_out.a", "tuckerd.layer1.fc_out.b"]);
    assertEquals(counts(model), counts(await loadModel(model.path)), "the given model was changed");
  }
});

Deno.test("two linear layers without an activation between them, or with a norm, are no feed-forward network", async () => {
  const model = await loadModel(oracleExports("bert").find(({ file }) => file.includes("opset17"))!.path);
  const node = (pattern: RegExp): NodeProto => model.proto.graph!.node.find(({ name }) => pattern.test(name))!;
  const output = node(/layer\.1\/output\/dense\/MatMul/);
  const linear = node(/layer\.1\/intermediate\/dense\/Add/).output[0]!;
  assertEquals(layersWithout(model, withFields(output, { input: [linear, output.input[1]!] })), [0, 2]);
  const relu = withFields(node(/layer\.1\/intermediate\/dense\/Add/), {
    opType: "Softmax",
    name: "mixed",
    input: [linear],
    output: ["mixed"],
    attribute: [],
  });
  const mixed = withFields(output, { input: ["mixed", output.input[1]!] });
  assertEquals(layersWithout(model, mixed, relu), [0, 2]);
});

Deno.test("a matrix that is used elsewhere too stays, and so does its network", async () => {
  const model = await loadModel(oracleExports("bert").find(({ file }) => file.includes("opset17"))!.path);
  const [first, second] = [0, 1].map((layer) =>
    model.proto.graph!.node.find(({ name }) => name.includes(`layer.${layer}/intermediate/dense/MatMul`))!
  );
  const tied = withFields(second!, { input: [second!.input[0]!, first!.input[1]!] });
  assertEquals(layersWithout(model, tied), [2]);
});

Deno.test("a matrix that isn't there is refused", async () => {
  const model = await loadModel(oracleExports("bert")[0]!.path);
  assert(findAttention(model).blocks.length > 0);
  assertThrows(() => extractFeedForward(model, { layer: 0, index: 0, matrix: "fc_up" }), RangeError, "fc_up");
  assertThrows(() => extractFeedForward(model, { layer: 9, index: 0, matrix: "fc_in" }), RangeError, "layer 9");
});

/** Layers with a network in a model in which a node (found by its output) is another, with further nodes before it. */
function layersWithout(model: OnnxModel, changed: NodeProto, ...added: readonly NodeProto[]): number[] {
  const graph = model.proto.graph!;
  const node = graph.node.flatMap((each) => each.output[0] === changed.output[0] ? [...added, changed] : [each]);
  const proto = withFields(model.proto, { graph: withFields(graph, { node }) });
  return findFeedForward({ ...model, proto }).map(({ layer }) => layer);
}

function identity(size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => i % (size + 1) === 0 ? 1 : 0);
}

function counts(model: OnnxModel): Record<string, number> {
  const result: Record<string, number> = {};
  for (const { opType } of model.proto.graph!.node) result[opType] = (result[opType] ?? 0) + 1;
  return result;
}

function difference(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  const changes = [...names].map((name) => [name, (after[name] ?? 0) - (before[name] ?? 0)] as const);
  return Object.fromEntries(changes.filter(([, change]) => change !== 0));
}
