/**
 * Models of mixed precision: products that run in another type than the projections before and behind them. Double precision takes the
 * place of the wider type, so that results stay as exact as PyTorch's.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { encodeModel, loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { Conformance } from "../support/conformance.ts";
import { assertExact, changed, node, original, SELF } from "../support/edited_roberta.ts";
import { oracleExports } from "../support/oracle.ts";

/** A node that computes in double precision between casts, and something after it that wants its type. */
function inDouble(each: NodeProto): NodeProto[] {
  const cast = (input: string, output: string, to: number): NodeProto =>
    makeNode("Cast", [input], [output], { attributes: { to: BigInt(to) } });
  const [output] = each.output as [string];
  const wide = each.input.map((name, i) => `${output}.wide${i}.${name}`);
  return [
    ...each.input.map((name, i) => cast(name, wide[i]!, DataType.DOUBLE)),
    withFields(each, { input: wide, output: [`${output}.wide`] }),
    makeNode("Constant", [], [`${output}.zero`], { attributes: { value: floatTensor("", [], Float32Array.of(0)) } }),
    cast(`${output}.zero`, `${output}.nothing`, DataType.DOUBLE),
    makeNode("Add", [`${output}.wide`, `${output}.nothing`], [`${output}.same`]),
    cast(`${output}.same`, output, DataType.FLOAT),
  ];
}

/** A node of RoBERTa's first output projection. */
function outputNode(name: string): NodeProto {
  return original.proto.graph!.node.find((each) => each.name === `${SELF.replace("self", "output")}/dense/${name}`)!;
}

Deno.test("products, and what follows the output matrix, in another type than the matrices", async () => {
  const places = [node("MatMul"), node("MatMul_1"), outputNode("Add")];
  for (const chosen of [...places.map((each) => [each]), places]) {
    const model = changed(new Map(chosen.map((each) => [each, inDouble(each)])));
    const [first] = findAttention(model).blocks;
    assertEquals([first!.queryKeyExpandedBecause, first!.valueOutputExpandedBecause], [undefined, undefined]);
    await assertExact(model);
  }
});

Deno.test("matrices of different types are left alone", () => {
  const value = node("value/MatMul");
  const [stream, matrix] = value.input as [string, string];
  const cast = (input: string, output: string): NodeProto =>
    makeNode("Cast", [input], [output], { attributes: { to: BigInt(DataType.DOUBLE) } });
  const back = makeNode("Cast", ["wide"], value.output, { attributes: { to: BigInt(DataType.FLOAT) } });
  const model = changed(
    new Map([[value, [
      cast(stream, "wide.stream"),
      cast(matrix, "wide.matrix"),
      withFields(value, { input: ["wide.stream", "wide.matrix"], output: ["wide"] }),
      back,
    ]]]),
  );
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks.map(({ name }) => name), ["roberta.encoder.layer.1.attention"]);
  assertEquals(skipped.map(({ reason }) => reason), [
    "its matrices are of different types: query float, key float, value double, output float",
  ]);
});

Deno.test("a matrix that comes through an operator that isn't understood is left alone", () => {
  const query = node("query/MatMul");
  const [stream, matrix] = query.input as [string, string];
  const bent = makeNode("Tanh", [matrix], ["bent"], { name: "bender" });
  const model = changed(new Map([[query, [bent, withFields(query, { input: [stream, "bent"] })]]]));
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks.length, 1);
  assertMatch(
    skipped[0]!.reason,
    /^its query matrix can't be read: bent comes through Tanh \(bender\), which isn't understood$/,
  );
  const stored = withFields(floatTensor("eighth", [32, 32], new Float32Array(1024)), { dataType: 17 });
  const small = changed(new Map([[query, [withFields(query, { input: [stream, "eighth"] })]]]), { tensors: [stored] });
  assertMatch(
    findAttention(small).skipped[0]!.reason,
    /^its query matrix can't be read: eighth is stored as data type 17, /,
  );
});

for (const name of ["gpt-neo", "gpt-bigcode"]) {
  Deno.test(`${name} with all of attention's products in another type: full, compressed and latent caches`, async () => {
    const oracle = new Conformance(name);
    const [exported] = oracleExports(name) as [ReturnType<typeof oracleExports>[number]];
    const model = await loadModel(exported.path);
    const { graph } = model.proto;
    const constants = new Set(graph!.initializer.map((tensor) => tensor.name));
    const nodes = graph!.node.flatMap((each) =>
      each.opType === "MatMul" && !constants.has(each.input[1]!) ? inDouble(each) : [each]
    );
    assertEquals(nodes.length, graph!.node.length + 6 * 4, "two products in each of two layers");
    const folder = await Deno.makeTempDir();
    try {
      const path = `${folder}/model.onnx`;
      const edited: OnnxModel = {
        ...model,
        proto: withFields(model.proto, { graph: withFields(graph!, { node: nodes }) }),
      };
      await Deno.writeFile(path, encodeModel(edited));
      const mixed = { ...exported, path };
      await oracle.checkFullRanks(mixed);
      for (const cache of ["full", "compressed", "latent"] as const) {
        await oracle.checkGreedy(mixed, cache);
        await oracle.checkPieces(mixed, cache, ["half-all-layers", "half-whole-stack"]);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
