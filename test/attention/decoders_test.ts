/**
 * Decoders with and without a cache, separate and merged, and the other architectures: found, factored, dense, and greedy
 * tokens through full and compressed caches.
 */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { Conformance } from "../support/conformance.ts";
import { oracleExports } from "../support/oracle.ts";

/** What keeps query and key of an architecture from running reduced: undefined where nothing does. */
const EXPANDED: Readonly<Record<string, RegExp | undefined>> = {
  albert: undefined,
  vit: undefined,
  gpt2: undefined,
  bloom: undefined,
  gptj: /^query: (Add|Mul)/,
  codegen: /^query: (Add|Mul)/,
  llama: /^query: (Add|Mul)/,
  "llama-gqa": /^query: (Add|Mul)/,
  "falcon-mqa": /^query: (Add|Mul)/,
  gemma2: /^query: (Add|Mul)/,
  qwen3: /^query: (Add|Mul)/,
};

/** Interventions that are enough where every one needs a session of its own. */
const SOME = ["half", "half-all-layers"];

for (const [name, because] of Object.entries(EXPANDED)) {
  const oracle = new Conformance(name);
  for (const exported of oracleExports(name)) {
    const at = `${name}/${exported.file}`;
    const cached = /past|merged|decoder/.test(exported.file);
    const decodes = /past\/model|merged/.test(exported.file);

    Deno.test(`${at}: every block is found with its weights, and what must run expanded`, async () => {
      await oracle.checkFound(exported);
      for (const block of findAttention(await loadModel(exported.path)).blocks) {
        assertEquals(because?.test(block.queryKeyExpandedBecause!) ?? block.queryKeyExpandedBecause, because && true);
        assertEquals(block.valueOutputExpandedBecause, undefined);
        const heads = block.keyValueHeads * block.headSize;
        assertEquals(block.cacheNumbersPerToken, cached ? 2 * heads : 0);
      }
    });

    Deno.test(`${at}: factors at full ranks give PyTorch's outputs, and leave none of the original matrices`, async () => {
      await oracle.checkFullRanks(exported);
      await oracle.checkReplaced(exported, "full");
      await oracle.checkReplaced(exported, "compressed");
    });

    Deno.test(`${at}: interventions, factored and dense, give PyTorch's outputs`, async () => {
      await oracle.checkInterventions(exported, "factored");
      await oracle.checkInterventions(exported, "dense", SOME);
    });

    if (decodes) {
      Deno.test(`${at}: greedy tokens after interventions, with full and compressed caches, are PyTorch's`, async () => {
        await oracle.checkGreedy(exported, "full", SOME);
        await oracle.checkGreedy(exported, "compressed", SOME.slice(-1));
      });
    }
  }
}
