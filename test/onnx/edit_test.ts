import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { applyEdits, type GraphEdit, NameSource } from "../../src/onnx/edit.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
} from "../../src/onnx/gen/onnx_pb.ts";
import { freeNames, Graph } from "../../src/onnx/graph.ts";
import { type GraphProto, makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { floatTensor } from "../../src/onnx/tensor.ts";

const scalar = (name: string): TensorProto => floatTensor(name, [], Float32Array.of(1));
const NOTHING: GraphEdit = { removed: new Set(), added: [], initializers: [], inputs: [] };

function graphOf(nodes: NodeProto[], outputs: string[], inputs: string[] = ["x"]): GraphProto {
  return create(GraphProtoSchema, {
    node: nodes,
    input: inputs.map((name) => ({ name })),
    output: outputs.map((name) => ({ name })),
    initializer: [scalar("w"), scalar("unused")],
  });
}

function branch(graph: GraphProto, attribute: string): AttributeProto {
  return create(AttributeProtoSchema, { name: attribute, type: AttributeProto_AttributeType.GRAPH, g: graph });
}

Deno.test("the index knows producers, uses, inputs and initializers", () => {
  const add = makeNode("Add", ["x", "w"], ["a"]);
  const mul = makeNode("Mul", ["a", "a"], ["y"]);
  const graph = new Graph(graphOf([add, mul], ["y"]));
  assert(graph.producer("a") === add);
  assertEquals(graph.producer("x"), undefined);
  assertEquals(graph.uses("a").map(({ node, index }) => [node.opType, index]), [["Mul", 0], ["Mul", 1]]);
  assertEquals(graph.initializer("w")?.name, "w");
  assertEquals(graph.input("w"), undefined);
  assert(graph.isOutput("y") && !graph.isOutput("a"));
});

Deno.test("initializers that are listed as inputs are constants, and go with their input", () => {
  const proto = graphOf([makeNode("Add", ["x", "w"], ["y"])], ["y"], ["x", "w", "unused"]);
  const graph = new Graph(proto);
  assertEquals(graph.input("w"), undefined);
  const edited = applyEdits(graph, new Map([[graph, NOTHING]]));
  assertEquals(edited.input.map(({ name }) => name), ["x", "w"]);
  assertEquals(edited.initializer.map(({ name }) => name), ["w"]);
});

Deno.test("an edit drops dead nodes, orders the rest and leaves the original alone", () => {
  const add = makeNode("Add", ["x", "w"], ["a"]);
  const neg = makeNode("Neg", ["a"], ["b"]);
  const exp = makeNode("Exp", ["b"], ["y"]);
  const proto = graphOf([add, neg, exp], ["y"]);
  const graph = new Graph(proto);
  const edited = applyEdits(
    graph,
    new Map([[graph, {
      ...NOTHING,
      removed: new Set([neg]),
      // Given in the wrong order, and taking over the name of the removed node's output.
      added: [makeNode("Sqrt", ["c"], ["b"]), makeNode("Abs", ["x"], ["c"])],
    }]]),
  );
  assertEquals(edited.node.map(({ opType }) => opType), ["Abs", "Sqrt", "Exp"]);
  assertEquals(edited.initializer, []);
  assertEquals(proto.node.length, 3);
  assertEquals(proto.initializer.length, 2);
});

Deno.test("values read only inside a branch stay, and edits inside a branch make new branches", () => {
  const inner = create(GraphProtoSchema, { node: [makeNode("Neg", ["a"], ["t"])], output: [{ name: "t" }] });
  const other = create(GraphProtoSchema, { node: [makeNode("Abs", ["w"], ["e"])], output: [{ name: "e" }] });
  const choose = makeNode("If", ["x"], ["y"]);
  choose.attribute = [branch(inner, "then_branch"), branch(other, "else_branch")];
  const proto = graphOf([makeNode("Add", ["x", "w"], ["a"]), choose], ["y"]);
  const graph = new Graph(proto);
  assertEquals([...freeNames(inner)], ["a"]);
  assertEquals(graph.uses("a").map(({ node, graph: user }) => [node.opType, user === graph]), [["Neg", false]]);
  const [then] = graph.subgraphs;
  const edit = { ...NOTHING, removed: new Set([inner.node[0]!]), added: [makeNode("Exp", ["x"], ["t"])] };
  const edited = applyEdits(graph, new Map([[then!, edit]]));
  assertEquals(edited.node.map(({ opType }) => opType), ["If"]);
  assertEquals(edited.node[0]!.attribute[0]!.g!.node[0]!.opType, "Exp");
  assert(edited.node[0]!.attribute[1]!.g === other);
  assert(choose.attribute[0]!.g === inner);
});

Deno.test("a cycle is an error of the program", () => {
  const graph = new Graph(graphOf([makeNode("Neg", ["x"], ["y"])], ["y"]));
  const removed = new Set(graph.proto.node);
  const added = [makeNode("Neg", ["b"], ["y"]), makeNode("Neg", ["y"], ["b"])];
  assertThrows(() => applyEdits(graph, new Map([[graph, { ...NOTHING, removed, added }]])), TypeError);
});

Deno.test("fresh names avoid every name of the model, branches included", () => {
  const inner = create(GraphProtoSchema, { node: [makeNode("Neg", ["x"], ["inner"])], output: [{ name: "inner" }] });
  const choose = makeNode("If", ["x"], ["y"]);
  choose.attribute = [branch(inner, "then_branch"), branch(inner, "else_branch")];
  const names = new NameSource(new Graph(graphOf([choose], ["y"])));
  assertEquals(["inner", "inner", "w", "free"].map((name) => names.fresh(name)), ["inner_2", "inner_3", "w_2", "free"]);
});
