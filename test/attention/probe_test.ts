/** What sizes a probe gives the dimensions of a model's inputs, whatever exporters call them. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { probeRuns } from "../../src/attention/trace/evaluate.ts";
import { PROBE, ProbeSizes } from "../../src/attention/trace/probe.ts";
import { GraphProtoSchema, type TensorProto } from "../../src/onnx/gen/onnx_pb.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";

/** Sizes of inputs of a graph that has them all. */
function sizesOf(inputs: Readonly<Record<string, readonly (string | number)[]>>): Record<string, unknown> {
  const infos = Object.entries(inputs).map(([name, shape]) => tensorInfo(name, DataType.INT64, shape));
  const sizes = new ProbeSizes(PROBE, infos);
  return Object.fromEntries(infos.map((info) => [info.name, sizes.valueOf(info).shape]));
}

const { batch, tokens, past, encoder } = PROBE;

Deno.test("sizes that say what they are are taken by name", () => {
  assertEquals(
    sizesOf({
      input_ids: ["batch_size", "sequence_length"],
      attention_mask: ["batch_size", "past_sequence_length + 1"],
      "past_key_values.0.key": ["batch_size", 4, "past_sequence_length", 8],
      encoder_hidden_states: ["batch_size", "encoder_sequence_length", 32],
    }),
    {
      input_ids: [batch, tokens],
      attention_mask: [batch, past + 1],
      "past_key_values.0.key": [batch, 4, past, 8],
      encoder_hidden_states: [batch, encoder, 32],
    },
  );
});

Deno.test("sizes whose names say nothing are taken by their place: torch.export may call every batch something else", () => {
  assertEquals(
    sizesOf({
      input_ids: ["s95", "s85"],
      attention_mask: ["s87", "s85"],
      position_ids: ["s26", "s0"],
    }),
    { input_ids: [batch, tokens], attention_mask: [batch, tokens], position_ids: [batch, tokens] },
  );
});

Deno.test("with a cache a mask covers past and new tokens, by place or as a sum of names that come later", () => {
  const expected = {
    input_ids: [batch, tokens],
    attention_mask: [batch, past + tokens],
    "past_key_values.0.key": [batch, 4, past, 8],
  };
  for (const mask of ["s9", "s1 + s4"]) {
    assertEquals(
      sizesOf({
        input_ids: ["s0", "s1"],
        attention_mask: ["s0", mask],
        "past_key_values.0.key": ["s2", 4, "s4", 8],
      }),
      expected,
    );
  }
});

Deno.test("nameless sizes are taken by their place, and one axis alone is one of tokens", () => {
  assertEquals(
    sizesOf({
      input_ids: ["", ""],
      cache_position: [""],
      "past_key_values.0.key": ["", 4, "", 8],
    }),
    { input_ids: [batch, tokens], cache_position: [tokens], "past_key_values.0.key": [batch, 4, past, 8] },
  );
});

/** A graph on pictures of any size, with nodes that lead to a softmax over `scores`. */
function pictures(node: readonly NodeProto[], initializer: readonly TensorProto[]): Graph {
  return new Graph(create(GraphProtoSchema, {
    name: "pictures",
    node: [...node, makeNode("Softmax", ["scores"], ["probabilities"])],
    initializer: [...initializer],
    input: [tensorInfo("pixels", DataType.FLOAT, ["batch", 3, "height", "width"])],
    output: [tensorInfo("probabilities", DataType.FLOAT, ["batch", "a", "b", "c"])],
  }));
}

const kernel = (size: number) => floatTensor("kernel", [4, 3, size, size], new Float32Array(12 * size * size));
const stride = (size: number) => ({
  strides: [BigInt(size), BigInt(size)],
  kernel_shape: [3n, 3n],
  pads: [1n, 1n, 1n, 1n],
});

Deno.test("pictures are so large that poolings too make several positions, of other numbers in both probes", () => {
  const halved = (from: string, to: string) => makeNode("MaxPool", [from], [to], { attributes: stride(2) });
  const graph = pictures([
    makeNode("Conv", ["pixels", "kernel"], ["seen"], { attributes: stride(2) }),
    halved("seen", "half"),
    halved("half", "quarter"),
    makeNode("Identity", ["quarter"], ["scores"]),
  ], [kernel(3)]);
  const [first, second] = probeRuns(graph, "").map((run) => run.value(graph, "scores").shape!);
  for (const axis of [2, 3]) {
    assert(first![axis]! > 1 && second![axis]! > 1 && first![axis] !== second![axis], `${first} and ${second}`);
  }
});

Deno.test("pictures have the sizes that a graph can cut in equal parts, and the smallest where none fits", () => {
  const cutting = (parts: number): Graph =>
    pictures([
      makeNode("Shape", ["pixels"], ["sizes"]),
      makeNode("Gather", ["sizes", "height"], ["rows"]),
      makeNode("Div", ["rows", "parts"], ["windows"]),
      makeNode("Concat", ["zero", "zero", "windows", "parts", "rest"], ["cut"], { attributes: { axis: 0n } }),
      makeNode("Reshape", ["pixels", "cut"], ["scores"]),
    ], [
      int64Tensor("height", [2]),
      int64Tensor("parts", [parts]),
      int64Tensor("zero", [0]),
      int64Tensor("rest", [-1]),
    ]);
  const shapes = (graph: Graph) => probeRuns(graph, "").map((run) => run.value(graph, "scores").shape);
  // 5 rows and 7 don't come in pairs, 20 and 28 do; in eights 80 and 112.
  assertEquals(shapes(cutting(2)).map((shape) => shape?.slice(2, 4)), [[10, 2], [14, 2]]);
  assertEquals(shapes(cutting(8)).map((shape) => shape?.slice(2, 4)), [[10, 8], [14, 8]]);
  const graph = cutting(7 * 11);
  assertEquals(probeRuns(graph, "")[0].value(graph, "pixels").shape, [PROBE.batch, 3, 5, 6]);
});

Deno.test("pictures are followed through the blocks of channels that ONNX Runtime makes on a CPU", () => {
  const nchwc = (
    opType: string,
    inputs: string[],
    to: string,
    attributes: Record<string, bigint | bigint[]>,
  ): NodeProto => makeNode(opType, inputs, [to], { domain: "com.microsoft.nchwc", attributes });
  // 10 channels, in blocks of 8 two.
  const blocks = floatTensor("blocks", [16, 3, 2, 3], new Float32Array(16 * 18));
  const through = (last: bigint): (number | undefined)[] => {
    const graph = pictures([
      makeNode("Transpose", ["pixels"], ["channelsLast"], { attributes: { perm: [0n, 2n, 3n, 1n] } }),
      nchwc("ReorderInput", ["channelsLast"], "ordered", { channels_last: 1n }),
      nchwc("Conv", ["ordered", "blocks"], "seen", { strides: [2n, 3n], kernel_shape: [2n, 3n] }),
      nchwc("ReorderOutput", ["seen"], "scores", { channels: 10n, channels_last: last }),
    ], [blocks]);
    const [run] = probeRuns(graph, "");
    const [, , height, width] = run.value(graph, "pixels").shape!;
    const [rows, columns] = [Math.floor(height! / 2), Math.floor(width! / 3)];
    assertEquals(
      run.value(graph, "scores").shape,
      last ? [PROBE.batch, rows, columns, 10] : [PROBE.batch, 10, rows, columns],
    );
    return [rows, columns];
  };
  assertEquals(through(0n), through(1n));
});
