/**
 * Functions of a model's own: ONNX Runtime, which runs them itself, says what the model without calls must give.
 */
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { findAttention } from "../../src/attention/mod.ts";
import { TuckerdError } from "../../src/errors.ts";
import { withFields } from "../../src/onnx/codec.ts";
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  type FunctionProto,
  FunctionProtoSchema,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  OperatorSetIdProtoSchema,
} from "../../src/onnx/gen/onnx_pb.ts";
import { inlineFunctions } from "../../src/onnx/inline.ts";
import { encodeModel, loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeGraph, makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { Conformance } from "../support/conformance.ts";
import { oracleExports } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

const OWN = "models.own";

function functionOf(
  name: string,
  body: {
    readonly input: string[];
    readonly output: string[];
    readonly node: NodeProto[];
    readonly attribute?: string[];
    /** Attributes with the value that they have where a call gives none. */
    readonly otherwise?: Readonly<Record<string, bigint>>;
    readonly version?: bigint;
  },
): FunctionProto {
  const { otherwise = {}, version = 17n, ...fields } = body;
  const attributeProto = Object.entries(otherwise).map(([name, i]) =>
    create(AttributeProtoSchema, { name, type: Kind.INT, i })
  );
  return create(FunctionProtoSchema, { name, domain: OWN, ...fields, attributeProto, opsetImport: versions(version) });
}

const versions = (standard: bigint) => [
  create(OperatorSetIdProtoSchema, { version: standard }),
  create(OperatorSetIdProtoSchema, { domain: OWN, version: 1n }),
];

/** A node whose attribute has the value of one of its function's call. */
function referring(node: NodeProto, name: string, to: string): NodeProto {
  return withFields(node, {
    attribute: [create(AttributeProtoSchema, { name, type: Kind.INT, refAttrName: to })],
  });
}

const call = (
  name: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Record<string, AttributeValue> = {},
) => makeNode(name, inputs, outputs, { domain: OWN, attributes });

/** A model on x and y, both [2, 3], with an output z. */
function modelOf(nodes: NodeProto[], functions: FunctionProto[], outputs: string[] = ["z"]): OnnxModel {
  const value = (name: string) => tensorInfo(name, DataType.FLOAT, name === "z" ? ["a", "b"] : [2, 3]);
  const graph = create(GraphProtoSchema, {
    name: "main",
    node: nodes,
    input: [value("x"), value("y")],
    initializer: [floatTensor("w", [3], Float32Array.of(1, -2, 3))],
    output: outputs.map(value),
  });
  const proto = create(ModelProtoSchema, { irVersion: 8n, graph, functions, opsetImport: versions(17n) });
  return { proto, path: "functions.onnx", folder: "." };
}

function inlined(model: OnnxModel): OnnxModel {
  return { ...model, proto: inlineFunctions(model.proto) };
}

const INPUTS = { x: [[1, -2, 3], [-4, 5, -6]], y: [[0.5, 1, -1], [2, -3, 0.25]] };

/** The same numbers from ONNX Runtime, with and without calls. */
async function assertSame(model: OnnxModel): Promise<ModelProto> {
  const { proto } = inlined(model);
  assertEquals(proto.functions, []);
  assert(proto.graph!.node.every(({ domain }) => domain !== OWN), "calls are left");
  await using before = await TestSession.load(model);
  await using after = await TestSession.load({ ...model, proto });
  const [expected, actual] = [await before.run(INPUTS), await after.run(INPUTS)];
  for (const [name, { shape, data }] of Object.entries(expected)) {
    assertEquals([actual[name]!.shape, Array.from(actual[name]!.data)], [shape, Array.from(data)], name);
    assert(Array.from(data).every(Number.isFinite) && new Set(data as Float32Array).size > 1);
  }
  return proto;
}

Deno.test("a model without functions is the very same", () => {
  const { proto } = modelOf([makeNode("Add", ["x", "y"], ["z"])], []);
  assert(inlineFunctions(proto) === proto);
});

Deno.test("calls in calls, twice the same one, each with values of its own", async () => {
  const inner = functionOf("Twice", { input: ["a"], output: ["b"], node: [makeNode("Add", ["a", "a"], ["b"])] });
  const outer = functionOf("Mix", {
    input: ["a", "c"],
    output: ["d"],
    node: [call("Twice", ["a"], ["t"]), call("Twice", ["t"], ["u"]), makeNode("Mul", ["u", "c"], ["d"])],
  });
  const model = modelOf(
    // Names that the bodies' would get are taken already.
    [makeNode("Neg", ["y"], ["m/t"]), call("Mix", ["x", "m/t"], ["m"]), call("Mix", ["m", "w"], ["z"])],
    [inner, outer],
  );
  const { graph } = await assertSame(model);
  const names = graph!.node.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
});

Deno.test("attributes come from the call, or else from the function", async () => {
  const body = [referring(makeNode("Softmax", ["a"], ["b"]), "axis", "over")];
  const softened = functionOf("Softened", { input: ["a"], output: ["b"], node: body, otherwise: { over: 0n } });
  const plain = functionOf("Plain", { input: ["a"], output: ["b"], node: body, attribute: ["over"] });
  const model = modelOf([
    call("Softened", ["x"], ["p"]),
    call("Softened", ["x"], ["q"], { over: 1n }),
    call("Plain", ["y"], ["r"]), // given nowhere: the operator's own default
    call("Plain", ["y"], ["s"], { over: 0n }),
    makeNode("Concat", ["p", "q", "r", "s"], ["z"], { attributes: { axis: 0n } }),
  ], [softened, plain]);
  await assertSame(model);
});

Deno.test("inputs that aren't given, outputs that nobody reads, branches that read values of their function", async () => {
  const value = tensorInfo("e", DataType.FLOAT, ["a", "b"]);
  const branch = (operator: string) => makeGraph(operator, [makeNode(operator, ["t"], ["e"])], [value]);
  const choose = functionOf("Choose", {
    input: ["a", "low", "high"],
    output: ["unused", "b"],
    node: [
      makeNode("Clip", ["a", "low", "high"], ["t"]),
      makeNode("Exp", ["t"], ["unused"]),
      makeNode("ReduceSum", ["t"], ["sum"], { attributes: { keepdims: 0n } }),
      makeNode("Sub", ["sum", "sum"], ["zero"]),
      makeNode("Less", ["sum", "zero"], ["negative"]),
      makeNode("If", ["negative"], ["b"], { attributes: { then_branch: branch("Neg"), else_branch: branch("Exp") } }),
    ],
  });
  const bound = makeNode("Constant", [], ["one"], { attributes: { value: floatTensor("", [], Float32Array.of(1)) } });
  const model = modelOf([
    bound,
    call("Choose", ["x", "", "one"], ["", "p"]),
    call("Choose", ["y"], ["", "q"]),
    makeNode("Concat", ["p", "q"], ["z"], { attributes: { axis: 0n } }),
  ], [choose]);
  await assertSame(model);
});

Deno.test("what a function hands straight through has the call's name", () => {
  const pass = functionOf("Pass", {
    input: ["a", "b"],
    output: ["s", "b"],
    node: [makeNode("Add", ["a", "b"], ["s"])],
  });
  const model = modelOf([call("Pass", ["x", "y"], ["s", "t"]), makeNode("Sub", ["s", "t"], ["z"])], [pass]);
  const { graph } = inlined(model).proto;
  assertEquals(graph!.node.map(({ opType, input, output }) => [opType, input, output]), [
    ["Add", ["x", "y"], ["s"]],
    ["Identity", ["y"], ["t"]],
    ["Sub", ["s", "t"], ["z"]],
  ]);
});

Deno.test("a function that calls itself is refused, one of another version stays and is told", () => {
  const endless = functionOf("Endless", { input: ["a"], output: ["b"], node: [call("Endless", ["a"], ["b"])] });
  assertThrows(
    () => inlined(modelOf([call("Endless", ["x"], ["z"])], [endless])),
    TuckerdError,
    "Endless calls itself",
  );
  const old = functionOf("Old", {
    input: ["a"],
    output: ["b"],
    node: [makeNode("Softmax", ["a"], ["b"])],
    version: 12n,
  });
  const model = inlined(modelOf([call("Old", ["x"], ["z"])], [old]));
  assertEquals(model.proto.functions.length, 1);
  assertEquals(findAttention(model).skipped, [{
    node: "z",
    operator: `${OWN}.Old`,
    reason: "its function Old is written for version 12 of the standard operators, and the model for 17",
  }]);
});

Deno.test("RoBERTa in functions, layer by layer: found, factored and dense at PyTorch's outputs", async () => {
  const oracle = new Conformance("roberta");
  const exported = oracleExports("roberta").find(({ file }) => file === "onnx/model.onnx")!;
  const { proto } = await loadModel(exported.path);
  const graph = proto.graph!;
  const weights = graph.initializer.map(({ name }) => name);
  const version = proto.opsetImport.find(({ domain }) => domain === "")!.version;
  const product = functionOf("Product", {
    input: ["a", "b"],
    output: ["c"],
    node: [makeNode("MatMul", ["a", "b"], ["c"])],
    version,
  });
  const whole = functionOf("Model", {
    input: [...graph.input.map(({ name }) => name), ...weights],
    output: graph.output.map(({ name }) => name),
    node: graph.node.map((node) =>
      node.opType === "MatMul" ? withFields(node, { opType: "Product", domain: OWN }) : node
    ),
    version,
  });
  const main = withFields(graph, { node: [call("Model", whole.input, whole.output)], valueInfo: [] });
  const opsetImport = [...proto.opsetImport, create(OperatorSetIdProtoSchema, { domain: OWN, version: 1n })];
  const model = withFields(proto, { irVersion: 8n, graph: main, functions: [product, whole], opsetImport });
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/model.onnx`;
    await Deno.writeFile(path, encodeModel({ proto: model, path, folder }));
    const called = { ...exported, path };
    await oracle.checkFound(called);
    await oracle.checkFullRanks(called);
    await oracle.checkInterventions(called, "factored");
    await oracle.checkInterventions(called, "dense");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
