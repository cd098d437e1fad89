/** BERT, RoBERTa and DistilBERT in every export: everything runs reduced. */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { Conformance } from "../support/conformance.ts";
import { oracleExports } from "../support/oracle.ts";

for (const name of ["bert", "roberta", "distilbert"]) {
  const oracle = new Conformance(name);
  for (const exported of oracleExports(name)) {
    const at = `${name}/${exported.file}`;

    Deno.test(`${at}: every block is found with its weights, and nothing keeps it from running reduced`, async () => {
      await oracle.checkFound(exported);
      const model = await loadModel(exported.path);
      for (const block of findAttention(model).blocks) {
        assertEquals(block.queryKeyExpandedBecause, undefined);
        assertEquals(block.valueOutputExpandedBecause, undefined);
        assertEquals(Object.keys(extractWeights(model, block).biases).sort(), ["key", "output", "query", "value"]);
      }
    });

    Deno.test(`${at}: factors at full ranks give PyTorch's outputs`, () => oracle.checkFullRanks(exported));

    Deno.test(`${at}: interventions run factored give PyTorch's outputs`, () =>
      oracle.checkInterventions(exported, "factored"));

    Deno.test(`${at}: interventions run dense give PyTorch's outputs`, () =>
      oracle.checkInterventions(exported, "dense"));
  }
}
