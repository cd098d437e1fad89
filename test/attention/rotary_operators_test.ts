/**
 * Fused operators with rotary embedding inside or before them, with caches and grouped queries: GroupQueryAttention (separate,
 * packed, and behind RotaryEmbedding), MultiHeadAttention, and the standard's Attention in both layouts, against Hugging Face's outputs.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { analyse } from "../../src/attention/find.ts";
import { findAttention } from "../../src/attention/mod.ts";
import { describeRotation } from "../../src/attention/rotation.ts";
import { Identities } from "../../src/attention/trace/identity.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { Conformance } from "../support/conformance.ts";
import type { OracleExport } from "../support/oracle.ts";

/** Graphs by model, with what keeps queries and keys, and values and outputs from running reduced. */
const GRAPHS: readonly (readonly [model: string, form: string, queryKey: RegExp, valueOutput: RegExp | undefined])[] = [
  ["llama", "multi_head", /^query: com.microsoft.RotaryEmbedding/, undefined],
  ["llama-gqa", "attention", /^query: RotaryEmbedding/, undefined],
  ["qwen3", "attention_heads", /^query: RMSNormalization/, undefined],
  ["llama-16", "group_query", /^com.microsoft.GroupQueryAttention rotates keys inside/, undefined],
  ["llama-16", "group_query_packed", /^com.microsoft.GroupQueryAttention rotates keys inside/, undefined],
  ["llama-16", "group_query_turned", /^query: com.microsoft.RotaryEmbedding/, undefined],
  ["qwen3-16", "group_query_turned", /^query: SimplifiedLayerNormalization/, undefined],
  ["qwen3-16", "group_query", /^com.microsoft.GroupQueryAttention rotates keys inside/, undefined],
];

for (const [model, form, queryKey, valueOutput] of GRAPHS) {
  const oracle = new Conformance(model);
  const path = new URL(`../testdata/fused/${model}/${form}.onnx`, import.meta.url).pathname;
  const exported: OracleExport = { model, file: `past/${form}`, path };
  const at = `${model}/${form}`;

  Deno.test(`${at}: every block is found with its weights, and what must run expanded`, async () => {
    await oracle.checkFound(exported);
    for (const block of findAttention(await loadModel(path)).blocks) {
      assertMatch(block.queryKeyExpandedBecause!, queryKey);
      if (valueOutput === undefined) assertEquals(block.valueOutputExpandedBecause, undefined);
      else assertMatch(block.valueOutputExpandedBecause!, valueOutput);
      assertEquals(block.cacheNumbersPerToken, 2 * block.keyValueHeads * block.headSize);
    }
  });

  Deno.test(`${at}: factors at full ranks give the original outputs, and leave none of the original matrices`, async () => {
    await oracle.checkFullRanks(exported);
    await oracle.checkReplaced(exported, "full");
    await oracle.checkReplaced(exported, "compressed");
  });

  Deno.test(`${at}: interventions, factored and dense, give their outputs`, async () => {
    await oracle.checkInterventions(exported, "factored");
    await oracle.checkInterventions(exported, "dense");
  });

  Deno.test(`${at}: greedy tokens after interventions, with full and compressed caches`, async () => {
    await oracle.checkGreedy(exported, "full");
    await oracle.checkGreedy(exported, "compressed");
  });

  if (!queryKey.source.includes("inside")) {
    Deno.test(`${at}: how keys are rotated before the operator is known, the same in both layers`, async () => {
      const { blocks, tracer } = analyse(await loadModel(path));
      const reader = { tracer, identities: new Identities(tracer) };
      const [first, second] = blocks.map(({ sites }) => describeRotation(reader, sites).keyRotation);
      assertEquals([first?.coefficients, second?.coefficients], [oracle.sizes.h, oracle.sizes.h]);
      assertEquals(first!.group, second!.group);
    });
  }

  Deno.test(`${at}: in pieces through a latent cache, logits and greedy tokens are Hugging Face's`, async () => {
    await oracle.checkPieces(exported, "latent", oracle.tucker.interventions.map(({ name }) => name));
    await oracle.checkGreedy(exported, "latent");
    await oracle.checkReplaced(exported, "latent");
  });
}

Deno.test("GroupQueryAttention with a quantised cache is left as it is, since the scales are the original keys'", async () => {
  const model = await loadModel(new URL("../testdata/fused/llama-16/group_query.onnx", import.meta.url).pathname);
  const attributes = { k_quant_type: "PER_CHANNEL", v_quant_type: "NONE" };
  const { attribute } = makeNode("GroupQueryAttention", [], [], { attributes });
  for (const node of model.proto.graph!.node) {
    if (node.opType === "GroupQueryAttention") node.attribute.push(...attribute);
  }
  const { blocks, skipped } = findAttention(model);
  assertEquals(blocks, []);
  for (const { reason } of skipped) assertMatch(reason, /its cache is quantised/);
  assertEquals(skipped.length, 2);
});
