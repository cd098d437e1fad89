/**
 * Decoding one token with a cache, factored against dense in the same ONNX Runtime with all its graph optimisations: a GPT-2-medium shape
 * (1024, 16 heads, feed-forward 4096; 12 layers). Both are fed a past of the same length and give the grown cache out, as clients run
 * them; the factored model's holds r2 numbers per head. Factors are random, since only their sizes matter for time; runs take turns.
 *
 * @module
 */
import * as ort from "onnxruntime-node";
import type { Ranks } from "../../src/tucker/types.ts";
import { openSession, runInTurn, withRandomFactors } from "./random_factors.ts";
import { cacheNames, syntheticDecoder } from "./synthetic_decoder.ts";
import { type BenchResult, comparison } from "./types.ts";

const rounds = 15;
const sizes = { layers: 12, hiddenSize: 1024, heads: 16, headSize: 64, feedForward: 4096, weights: "float32" } as const;
const ranks: Ranks = [256, 16, 4];
/** Tokens in the cache, and how many times faster a prototype was on two cores. */
const contexts = [[64, 1.4], [1000, 2.1], [2000, 2.85]] as const;

function step(session: ort.InferenceSession, past: number, headSize: number): () => Promise<unknown> {
  const tensor = (...shape: number[]): ort.Tensor => {
    const count = shape.reduce((product, length) => product * length, 1);
    return new ort.Tensor("float32", Float32Array.from({ length: count }, () => Math.random() - 0.5), shape);
  };
  const feeds: Record<string, ort.Tensor> = {
    hidden: tensor(1, 1, sizes.hiddenSize),
    mask: new ort.Tensor("float32", new Float32Array(past + 1), [1, 1, 1, past + 1]),
  };
  for (let layer = 0; layer < sizes.layers; layer++) {
    for (const name of cacheNames(layer).past) feeds[name] = tensor(1, sizes.heads, past, headSize);
  }
  return () => session.run(feeds);
}

/** Bytes of the cache of some tokens, in MB. */
function megabytes(tokens: number, headSize: number): string {
  return (tokens * 2 * sizes.layers * sizes.heads * headSize * 4 / 1e6).toFixed(1);
}

/** Times dense and factored steps in turn. */
export async function benchDecode(): Promise<BenchResult[]> {
  const model = syntheticDecoder(sizes);
  const dense = await openSession(model);
  const small = await openSession(withRandomFactors(model, { ranks, cache: "compressed" }));
  const results: BenchResult[] = [];
  for (const [past, prototype] of contexts) {
    const runs = [step(dense, past, sizes.headSize), step(small, past, ranks[1])];
    const [baselineSeconds, seconds] = await runInTurn(runs, rounds);
    results.push(comparison({
      name: `GPT-2-medium shape, one token after ${past}, ranks ${ranks.join(",")}`,
      baseline: "the dense model in ONNX Runtime",
      note: `cache ${megabytes(past, ranks[1])} MB instead of ${
        megabytes(past, sizes.headSize)
      } MB; a prototype ran ${prototype} times`,
    }, { seconds: seconds!, baselineSeconds: baselineSeconds! }));
  }
  await dense.release();
  await small.release();
  return results;
}
