/**
 * Decoders of more architectures, from both of PyTorch's exporters: found, factored and dense at PyTorch's outputs, and greedy
 * tokens through full and compressed caches.
 */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { Conformance } from "../support/conformance.ts";
import { furtherArchitectures, oracleExports } from "../support/oracle.ts";

/** What the finder says of an architecture. */
interface Expected {
  /** Why query and key of each layer run expanded; undefined where they may run reduced. */
  readonly queryKey: readonly [RegExp | undefined, RegExp | undefined];
  readonly valueOutput?: RegExp;
  /** Key heads in the cache, where the graph repeats them before it caches them. */
  readonly cachedHeads?: number;
  /** Reasons of other softmaxes. */
  readonly others?: RegExp;
}

const rotated = /^query: (Add|Mul|com.microsoft.RotaryEmbedding) .* changes it$/;
const normed = /^query: (LayerNormalization|Mul) .* changes it$/;
const clipped = /: Clip .* changes it$/;

const router = /^no product of two projections leads to it: it comes from TopK /;
const gated = /^output: Mul .* changes it$/;

const EXPECTED: Readonly<Record<string, Expected>> = {
  cohere2: { queryKey: [rotated, undefined] },
  "falcon-new": { queryKey: [rotated, rotated], cachedHeads: 4 },
  gemma3: { queryKey: [normed, normed] },
  "gemma3-single": { queryKey: [normed, normed] },
  gemma3n: { queryKey: [normed, normed] },
  glm: { queryKey: [rotated, rotated] },
  "gpt-neo": { queryKey: [undefined, undefined] },
  "gpt-oss": { queryKey: [rotated, rotated], others: router },
  "gpt-bigcode": { queryKey: [undefined, undefined] },
  "gpt-neox": { queryKey: [rotated, rotated] },
  mixtral: {
    queryKey: [rotated, rotated],
    others: /^it follows the projection .* \(of a router or a classifier, say\)/,
  },
  olmo: { queryKey: [clipped, clipped], valueOutput: clipped },
  olmo2: { queryKey: [normed, normed] },
  opt: { queryKey: [undefined, undefined] },
  persimmon: { queryKey: [normed, normed] },
  phi3: { queryKey: [rotated, rotated] },
  qwen2: { queryKey: [rotated, rotated] },
  "qwen3-next": { queryKey: [normed, normed], valueOutput: gated },
  smollm3: { queryKey: [rotated, undefined] },
  "stablelm-norm": { queryKey: [normed, normed] },
};

Deno.test("every architecture that is here is expected, and the other way round", () => {
  assertEquals(Object.keys(EXPECTED).sort(), furtherArchitectures());
});

for (const [name, { queryKey, valueOutput, cachedHeads, others }] of Object.entries(EXPECTED)) {
  const oracle = new Conformance(name);
  for (const exported of oracleExports(name)) {
    const cached = exported.file.includes("-past/");

    Deno.test(`${name}/${exported.file}: found with its weights, and what must run expanded`, async () => {
      await oracle.checkFound(exported, others);
      const { blocks } = findAttention(await loadModel(exported.path));
      const matches = (reason: string | undefined, because: RegExp | undefined): boolean =>
        because === undefined ? reason === undefined : reason !== undefined && because.test(reason);
      for (const [layer, block] of blocks.entries()) {
        const { queryKeyExpandedBecause: first, valueOutputExpandedBecause: second } = block;
        assertEquals(
          [matches(first, queryKey[layer]), matches(second, valueOutput)],
          [true, true],
          `${first}; ${second}`,
        );
        const heads = cachedHeads ?? block.keyValueHeads;
        assertEquals(block.cacheNumbersPerToken, cached ? 2 * heads * block.headSize : 0);
        if (cached) assertEquals(block.noLatentCacheBecause, undefined);
      }
    });

    Deno.test(`${name}/${exported.file}: full and half ranks, factored and dense, give PyTorch's outputs`, async () => {
      await oracle.checkFullRanks(exported);
      await oracle.checkInterventions(exported, "factored");
      await oracle.checkInterventions(exported, "dense", ["half-all-layers"]);
    });

    if (cached) {
      Deno.test(`${name}/${exported.file}: greedy tokens through full, compressed and latent caches are PyTorch's`, async () => {
        await oracle.checkGreedy(exported, "full", ["half-all-layers"]);
        await oracle.checkGreedy(exported, "compressed");
        await oracle.checkGreedy(exported, "latent");
        await oracle.checkPieces(exported, "latent", ["half-all-layers", "half-whole-stack"]);
      });
    }
  }
}
