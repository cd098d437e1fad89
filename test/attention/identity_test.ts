/** Which elements of a graph are told to be the same number in every call: tables, what is picked from them, and what is computed from that. */
import { assert, assertEquals, assertNotEquals, assertStrictEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { type CoefficientSource, CoefficientSources } from "../../src/attention/trace/coefficient_sources.ts";
import { Identities } from "../../src/attention/trace/identity.ts";
import { probeRuns } from "../../src/attention/trace/evaluate.ts";
import { Tracer } from "../../src/attention/trace/tracer.ts";
import { GraphProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { type AttributeValue, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";

/** A table of 32 rows, whose two halves are the same, and one that differs from it in the last half's numbers. */
const table = Float32Array.from({ length: 32 * 4 }, (_, i) => Math.floor(i / 4) + i % 2 * 100);
const other = table.map((number, i) => i % 4 < 2 ? number : number + 1);

/** What is known of elements, by the names of the nodes' outputs. Under the probe there are 11 past and 3 new tokens. */
function elementsOf(...nodes: readonly NodeProto[]): (name: string) => Int32Array {
  const { identities, graph } = identitiesOf(...nodes);
  return (name) => identities.elements(graph, name)!;
}

function identitiesOf(...nodes: readonly NodeProto[]): { identities: Identities; tracer: Tracer; graph: Graph } {
  const cache = tensorInfo("past_key_values.0.key", DataType.FLOAT, ["batch", 1, "past", 4]);
  const graph = new Graph(create(GraphProtoSchema, {
    name: "identities",
    node: [
      node("Shape", ["past_key_values.0.key"], "shape"),
      node("Gather", ["shape", "axis2"], "past"),
      ...nodes,
    ],
    initializer: [
      floatTensor("table", [32, 4], table),
      floatTensor("copy", [32, 4], table),
      floatTensor("other", [32, 4], other),
      ...[0, 1, 2, 3, 11, 14, 32].map((number) => int64Tensor(`i${number}`, [number])),
      int64Tensor("axis2", [2]),
      floatTensor("half", [], Float32Array.of(0.5)),
    ],
    input: [tensorInfo("position_ids", DataType.INT64, ["batch", "sequence"]), cache],
    output: [],
  }));
  const tracer = new Tracer(probeRuns(graph, ""), "");
  return { identities: new Identities(tracer), tracer, graph };
}

function node(
  opType: string,
  inputs: readonly string[],
  output: string,
  attributes: Readonly<Record<string, AttributeValue>> = {},
): NodeProto {
  return makeNode(opType, inputs, [output], { name: output, attributes });
}

Deno.test("rows picked by the same positions are the same where their tables are", () => {
  const of = elementsOf(
    node("Gather", ["table", "position_ids"], "first"),
    node("Gather", ["copy", "position_ids"], "again"),
    node("Gather", ["other", "position_ids"], "different"),
    node("Cos", ["first"], "cos"),
    node("Cos", ["again"], "cosAgain"),
    node("Sin", ["first"], "sin"),
  );
  assertEquals(of("first"), of("again"));
  assertEquals(of("cos"), of("cosAgain"));
  const [first, different] = [of("first"), of("different")];
  assertEquals(first.length, 2 * 3 * 4);
  for (let i = 0; i < first.length; i++) {
    assertEquals(first[i] === different[i], i % 4 < 2, `element ${i}`);
    assertEquals(first[i], first[i - i % 4 + (i + 2) % 4], "halves of a table are the same");
  }
  assertEquals(new Set(first).size, 2 * 3 * 2);
  assert(of("cos").every((number, i) => number !== of("sin")[i] && number !== first[i]));
});

Deno.test("rows that an operator looks up itself are those that a graph would pick, and are compared once", () => {
  const { identities, tracer, graph } = identitiesOf(
    node("Gather", ["table", "position_ids"], "rows"),
  );
  const sources = new CoefficientSources(tracer);
  const rows = (table: string, positions: string, counted: boolean) =>
    sources.rows(graph, table, { positions, counted, tokens: [3, 5] })!;
  const [own, copied] = ["table", "copy"].map((table) => rows(table, "position_ids", false)) as [
    CoefficientSource,
    CoefficientSource,
  ];
  assertEquals(own.shape, [2, 3, 4]);
  assertEquals(identities.coefficients(own), identities.elements(graph, "rows"));
  assertEquals(identities.coefficients(copied), identities.coefficients(own));
  assertStrictEquals(identities.coefficients(own), identities.coefficients(own));
  assertNotEquals(identities.coefficients(rows("other", "position_ids", false)), identities.coefficients(own));
  const counted = [rows("table", "i3", true), rows("table", "i2", true)];
  assertEquals(counted.map(({ shape }) => shape), [[3, 4], [3, 4]]);
  const [third, second] = counted.map((source) => identities.coefficients(source)!);
  assertEquals(new Set([...third!, ...second!]).size, 2 * 3 * 2, "two numbers of each token, of both first positions");
});

Deno.test("a slice that begins elsewhere in other calls is not the one that it is under the probe", () => {
  const of = elementsOf(
    node("Slice", ["table", "i11", "i14", "i0"], "fixed"),
    node("Add", ["past", "i3"], "end"),
    node("Slice", ["table", "past", "end", "i0"], "moving"),
    node("Slice", ["copy", "past", "end", "i0"], "movingToo"),
    node("Slice", ["table", "i0", "i14", "i0"], "prefix"),
    node("Slice", ["table", "i0", "end", "i0"], "growing"),
  );
  assertEquals(of("moving"), of("movingToo"));
  assert(of("moving").every((number, i) => number !== of("fixed")[i]));
  assertEquals(of("prefix"), of("growing"));
});

Deno.test("what becomes an integer isn't the number that it was", () => {
  const of = elementsOf(
    node("Cast", ["position_ids"], "number", { to: BigInt(DataType.FLOAT) }),
    node("Mul", ["number", "half"], "halved"),
    node("Cast", ["halved"], "truncated", { to: BigInt(DataType.INT64) }),
    node("Cast", ["truncated"], "whole", { to: BigInt(DataType.FLOAT) }),
    node("Cast", ["halved"], "rounded", { to: BigInt(DataType.FLOAT16) }),
  );
  assert(of("whole").every((number, i) => number !== of("halved")[i]));
  assertEquals(of("rounded"), of("halved"));
});
