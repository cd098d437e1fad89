/**
 * Factors as initializers stand joined where one product can do: query, key and value side by side, and the output's two matrices
 * multiplied where that makes them no larger. Against the original graph with the weights that the factors stand for.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import {
  type AttentionBlock,
  type BlockForm,
  chooseForm,
  findAttention,
  rewriteDense,
  withMergedOutput,
} from "../../src/attention/mod.ts";
import { Graph } from "../../src/onnx/graph.ts";
import type { NodeProto } from "../../src/onnx/node.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { Architecture } from "../support/encoders.ts";
import { factoredForm } from "../support/factored.ts";
import { oracleExports, oracleFormats, oracleReference } from "../support/oracle.ts";
import { runInPieces } from "../support/pieces.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { TestSession } from "../support/session.ts";

/** A model with random factors as initializers, the original with the weights that they stand for, and the ranks of its caches. */
function joinedModel(
  model: OnnxModel,
  formOf: (block: AttentionBlock) => BlockForm,
  random: () => number,
): { readonly closed: OnnxModel; readonly dense: OnnxModel; readonly ranks: Readonly<Record<string, number>> } {
  const forms = new Map(findAttention(model).blocks.map((block) => [block.layer, formOf(block)]));
  const made = withRandomFactors(model, forms, random);
  return { closed: closedModel(model, forms, made), dense: rewriteDense(model, made.weights), ranks: made.ranks };
}

/** Nodes of a rewritten model in all its graphs, of one operator and a name that ends so. */
function nodesOf(model: OnnxModel, opType: string, ending: string): NodeProto[] {
  return [...new Graph(model.proto.graph!).all()].flatMap(({ proto }) =>
    proto.node.filter((node) =>
      node.opType === opType && node.name.startsWith("tuckerd/") && node.name.endsWith(ending)
    )
  );
}

const randomOutput = (form: BlockForm, random: () => number): BlockForm =>
  form.valueOutput === "reduced" && random() < 0.5 ? { ...form, output: "dense" } : form;

const ENCODERS = [
  ...["roberta", "albert", "vit"].flatMap((model) => oracleExports(model).slice(0, 1)),
  // Split takes its sizes as an attribute there.
  ...["bert", "distilbert"].flatMap(oracleExports).filter(({ file }) => file.includes("opset11")),
  ...oracleFormats().filter(({ model, format }) => model === "bert" && ["fused", "fp16"].includes(format)),
];

for (const { model: name, file, path } of ENCODERS) {
  Deno.test(`${name}/${file}: one product for query, key and value computes what dense weights do`, async () => {
    const seed = testSeed();
    const random = seeded(seed);
    const model = await loadModel(path);
    const formOf = (block: AttentionBlock) => randomOutput(chooseForm(block, "tucker4", { r3: 2 }), random);
    const { closed, dense } = joinedModel(model, formOf, random);
    const blocks = findAttention(model).blocks.length;
    assert(nodesOf(closed, "MatMul", "/packed").length >= blocks, "a block isn't packed");
    await using expectedSession = await TestSession.load(dense);
    await using session = await TestSession.load(closed);
    const { inputs } = oracleReference(name).cases.find((entry) => entry.name === "single")!;
    const [expected, actual] = [await expectedSession.run(inputs), await session.run(inputs)];
    for (const [output, { data }] of Object.entries(expected)) {
      const atol = (file.includes("fp16") ? 3e-2 : 1e-4) * largestValue(data);
      assertNear(actual[output]!.data, data, { atol, rtol: 0, what: `seed ${seed}, ${output}` });
    }
  });
}

const DECODERS = ["gpt2", "bloom", "gptj", "llama-gqa", "qwen3"].flatMap(oracleExports)
  .filter(({ file }) => /past\/model|merged/.test(file));

for (const { model: name, file, path } of DECODERS) {
  for (const cache of ["full", "compressed", "latent"] as const) {
    Deno.test(`${name}/${file}: joined factors and a ${cache} cache, token by token, give what dense weights give`, async () => {
      const seed = testSeed();
      const random = seeded(seed);
      const model = await loadModel(path);
      const formOf = (block: AttentionBlock) =>
        randomOutput(factoredForm(block, random() < 0.5 ? 4 : 2, cache), random);
      const { closed, dense, ranks } = joinedModel(model, formOf, random);
      assertEquals(nodesOf(closed, "MatMul", "/packed").length > 0, cache !== "latent");
      await using expectedSession = await TestSession.load(dense);
      await using session = await TestSession.load(closed);
      const row = Array.from({ length: 6 }, () => Math.floor(random() * 50));
      const inputs = { input_ids: [row], attention_mask: [row.map(() => 1)], position_ids: [row.map((_, i) => i)] };
      const { logits: expected } = await runInPieces(expectedSession, inputs, { pieces: [6] });
      const { logits: actual } = await runInPieces(session, inputs, {
        pieces: [3, 1, 1, 1],
        factors: {},
        sizes: ranks,
      });
      const atol = 1e-4 * largestValue(expected.data);
      assertNear(actual.data, expected.data, { atol, rtol: 0, what: `seed ${seed}` });
    });
  }
}

Deno.test("a packed encoder block is nineteen nodes around its softmax", async () => {
  const model = await loadModel(oracleExports("bert")[0]!.path);
  const { closed } = joinedModel(model, (block) => chooseForm(block, "tucker4", { r3: 2 }), seeded(1));
  const nodes = closed.proto.graph!.node.filter(({ name }) => name.startsWith("tuckerd/layer0/"));
  const counts = Object.groupBy(nodes, ({ opType }) => opType);
  assertEquals(Object.fromEntries(Object.entries(counts).map(([type, of]) => [type, of!.length]).sort()), {
    Add: 2,
    MatMul: 6,
    Mul: 1,
    Reshape: 4,
    Split: 1,
    Transpose: 4,
  });
  const left = closed.proto.graph!.initializer.filter(({ name }) => name.startsWith("tuckerd.layer0."));
  assertEquals(left.map(({ name }) => name.slice("tuckerd.layer0.".length)).sort(), [
    "down",
    "output.a",
    "output.bias",
    "packed.b",
    "packed.bias",
    "up",
  ]);
});

Deno.test("factors of parts that read different streams or are read one by one aren't joined", async () => {
  const packed = async (path: string): Promise<number> => {
    const { closed } = joinedModel(
      await loadModel(path),
      (block) => chooseForm(block, "tucker4", { r3: 2 }),
      seeded(1),
    );
    return nodesOf(closed, "MatMul", "/packed").length;
  };
  // Positions are projected with the matrices of the tokens' queries and keys.
  const deberta = new Architecture("deberta-v3");
  assertEquals(await packed(new URL(`${deberta.forms[0]}/model.onnx`, deberta.folder).pathname), 0);
  // Two layers, of whose two attentions one reads the encoder.
  assertEquals(await packed(oracleExports("t5").find(({ file }) => file.includes("decoder"))!.path), 2);
});

Deno.test("the output is one matrix where that is no larger than two", async () => {
  const { blocks: [block] } = findAttention(await loadModel(oracleExports("bert")[0]!.path));
  const form = chooseForm(block!, "tucker4", { r3: 4 });
  const outputOf = (changed: Partial<BlockForm>, sizes: [number, number]) =>
    withMergedOutput({ ...form, ...changed }, sizes, 48).output;
  // 16·48 = 768 = (16 + 48)·12.
  assertEquals(outputOf({}, [16, 12]), "dense");
  assertEquals(outputOf({}, [16, 11]), "shared");
  assertEquals(outputOf({ output: "pair" }, [16, 12]), "dense");
  assertEquals(outputOf({ valueOutput: "expanded" }, [16, 12]), "shared");
  assertEquals(outputOf({ output: "kept" }, [16, 12]), "kept");
});
