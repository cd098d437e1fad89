/**
 * RoBERTa's graph with one thing changed at a time, for tests of what is found and why not.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { OperatorSetIdProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "./close.ts";
import { factored } from "./factored.ts";
import { oracleExports, oracleReference } from "./oracle.ts";
import { randomTucker, seeded } from "./random_tucker.ts";
import { testSeed } from "./seed.ts";
import { TestSession } from "./session.ts";
import { reconstruct, unstackWeights } from "./tucker_reference.ts";

/** The model that is changed: two layers of 4 heads of 8, biases everywhere. */
export const original = await loadModel(oracleExports("roberta").find(({ file }) => file === "onnx/model.onnx")!.path);
/** Where the nodes of its first attention are. */
export const SELF = "/roberta/encoder/layer.0/attention/self";

/** A node of its first attention. */
export function node(name: string): NodeProto {
  const found = original.proto.graph!.node.find((candidate) => candidate.name === `${SELF}/${name}`);
  if (found === undefined) throw new TypeError(`no node ${name}`);
  return found;
}

/** The model with nodes replaced (by several, in place of one) and initializers added. */
export function changed(
  replacements: ReadonlyMap<NodeProto, readonly NodeProto[]>,
  extra: {
    readonly scalars?: Readonly<Record<string, number>>;
    readonly tensors?: readonly TensorProto[];
    readonly outputs?: readonly string[];
  } = {},
): OnnxModel {
  const graph = original.proto.graph!;
  const scalars = Object.entries(extra.scalars ?? {});
  const edited = withFields(graph, {
    node: graph.node.flatMap((each) => replacements.get(each) ?? [each]),
    initializer: [
      ...graph.initializer,
      ...extra.tensors ?? [],
      ...scalars.map(([name, value]) => floatTensor(name, [], Float32Array.of(value))),
    ],
    output: [...graph.output, ...(extra.outputs ?? []).map((name) => tensorInfo(name, DataType.FLOAT, ["b", "t", 32]))],
  });
  const opsetImport = [
    ...original.proto.opsetImport,
    create(OperatorSetIdProtoSchema, {
      domain: "com.microsoft",
      version: 1n,
    }),
  ];
  return { ...original, proto: withFields(original.proto, { graph: edited, opsetImport }) };
}

/**
 * Heads of the first attention in another order behind query, key and value, and put back behind the context: it computes what it did,
 * but no projection's columns, nor the output's rows, stand as its heads do.
 */
export function headsReordered(): OnnxModel {
  const order = [2, 0, 3, 1];
  const gathered = (name: string, indices: string): [NodeProto, NodeProto[]] => {
    const first = node(name);
    const [output] = first.output as [string];
    const moved = withFields(first, { output: [`${output}.before`] });
    return [first, [
      moved,
      makeNode("Gather", [`${output}.before`, indices], [output], { attributes: { axis: 2n } }),
    ]];
  };
  const behind = ["Reshape", "Reshape_1", "Reshape_2"].map((name) => gathered(name, "order"));
  const back = order.map((_, i) => order.indexOf(i));
  return changed(new Map([...behind, gathered("Transpose_3", "back")]), {
    tensors: [int64Tensor("order", order), int64Tensor("back", back)],
  });
}

/** Puts an operator behind a node: the node's readers read the new one. */
export function behind(first: NodeProto, opType: string, others: readonly string[] = []): [NodeProto, NodeProto[]] {
  const [output] = first.output;
  const moved = withFields(first, { output: [`${output}.before`] });
  return [first, [moved, makeNode(opType, [`${output}.before`, ...others], [output!])]];
}

/** Factored must equal dense whatever the reason. */
export async function assertExact(model: OnnxModel): Promise<void> {
  const seed = testSeed();
  const { blocks } = findAttention(model);
  const random = seeded(seed);
  const factors = new Map(
    blocks.map((block) => [block.layer, randomTucker(extractWeights(model, block).weights, random)] as const),
  );
  const weights = [...factors].map(([layer, tucker]) => [layer, unstackWeights(reconstruct(tucker), tucker)] as const);
  const { model: rewritten, feeds } = factored(model, factors);
  await using dense = await TestSession.load(rewriteDense(model, new Map(weights)));
  await using session = await TestSession.load(rewritten);
  const { inputs } = oracleReference("roberta").cases[1]!;
  const [expected, actual] = [await dense.run(inputs), await session.run(inputs, feeds)];
  for (const [name, { data }] of Object.entries(expected)) {
    assertNear(actual[name]!.data, data, { atol: 1e-4 * largestValue(data), rtol: 0, what: `seed ${seed} ${name}` });
  }
}
