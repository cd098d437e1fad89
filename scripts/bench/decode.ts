/**
 * Decoding one token with a cache, factored against dense in the same ONNX Runtime with all its graph optimisations: a GPT-2-medium shape
 * (1024, 16 heads, feed-forward 4096; 12 layers). Both are fed a past of the same length and give the grown cache out, as clients run
 * them; the factored model's holds r2 numbers per head, or the latent z. Factors are random, since only their sizes matter for time; runs take turns.
 *
 * @module
 */
import * as ort from "../../src/onnx_runtime.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { openSession, runInTurn, withRandomFactors } from "./random_factors.ts";
import { cacheNames, syntheticDecoder } from "./synthetic_decoder.ts";
import { type BenchResult, comparison } from "./types.ts";

const rounds = { blocks: 6, runs: 5 };
const sizes = { layers: 12, hiddenSize: 1024, heads: 16, headSize: 64, feedForward: 4096, weights: "float32" } as const;
const ranks: Ranks = [256, 16, 4];
/** Tokens in the cache, and how many times faster a prototype was on two cores. */
const contexts = [[64, 1.4], [1000, 2.1], [2000, 2.85]] as const;

/** Heads and numbers of a layer's keys and values in the cache. */
type CacheShape = readonly [key: readonly [heads: number, size: number], value: readonly [heads: number, size: number]];

const { heads, headSize } = sizes;
const caches = {
  dense: [[heads, headSize], [heads, headSize]],
  perHead: [[heads, ranks[1]], [heads, ranks[1]]],
  latent: [[1, ranks[0]], [1, 0]],
} as const satisfies Record<string, CacheShape>;

function step(session: ort.InferenceSession, past: number, cache: CacheShape): () => Promise<unknown> {
  const tensor = (...shape: number[]): ort.Tensor => {
    const count = shape.reduce((product, length) => product * length, 1);
    return new ort.Tensor("float32", Float32Array.from({ length: count }, () => Math.random() - 0.5), shape);
  };
  const feeds: Record<string, ort.Tensor> = {
    hidden: tensor(1, 1, sizes.hiddenSize),
    mask: new ort.Tensor("float32", new Float32Array(past + 1), [1, 1, 1, past + 1]),
  };
  for (let layer = 0; layer < sizes.layers; layer++) {
    cacheNames(layer).past.forEach((name, i) => feeds[name] = tensor(1, cache[i]![0], past, cache[i]![1]));
  }
  return () => session.run(feeds);
}

/** Bytes of the cache of some tokens, in MB. */
function megabytes(tokens: number, [key, value]: CacheShape): string {
  return (tokens * sizes.layers * (key[0] * key[1] + value[0] * value[1]) * 4 / 1e6).toFixed(1);
}

/** Times dense and factored steps in turn. */
export async function benchDecode(): Promise<BenchResult[]> {
  const model = syntheticDecoder(sizes);
  const dense = await openSession(model);
  const small = await openSession(withRandomFactors(model, { ranks, cache: "compressed" }));
  const latent = await openSession(withRandomFactors(model, { ranks, cache: "compressed", latent: true }));
  const results: BenchResult[] = [];
  for (const [past, prototype] of contexts) {
    const runs = [
      step(dense, past, caches.dense),
      step(small, past, caches.perHead),
      step(latent, past, caches.latent),
    ];
    const [denseSeconds, perHeadSeconds, latentSeconds] = await runInTurn(runs, rounds);
    const name = `GPT-2-medium shape, one token after ${past}, ranks ${ranks.join(",")}`;
    results.push(
      comparison({
        name,
        baseline: "the dense model in ONNX Runtime",
        note: `cache ${megabytes(past, caches.perHead)} MB instead of ${megabytes(past, caches.dense)} MB; ` +
          `a prototype ran ${prototype} times`,
      }, { seconds: perHeadSeconds!, baselineSeconds: denseSeconds! }),
      comparison({
        name: `${name}, latent cache`,
        baseline: "r2 numbers per head in the cache",
        note: `cache ${megabytes(past, caches.latent)} MB instead of ${megabytes(past, caches.perHead)} MB`,
      }, { seconds: latentSeconds!, baselineSeconds: perHeadSeconds! }),
    );
  }
  await dense.release();
  await small.release();
  await latent.release();
  return results;
}
