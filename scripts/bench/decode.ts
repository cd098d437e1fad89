/**
 * Decoding one token with a cache, factored against dense in the same ONNX Runtime with all its graph optimisations: a GPT-2-medium shape
 * (1024, 16 heads, feed-forward 4096; 12 layers), and the same with the rotary embeddings of GPT-J (a quarter of each head) and of LLaMA
 * (all). Both are fed a past of the same length and give the grown cache out, as clients run them; the factored model's holds r2 numbers per
 * head (rotated keys: all), or the latent z. Factors are random, since only their sizes matter for time; runs take turns.
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

/** A model that is timed: how many of a head's numbers are rotated. */
interface Subject {
  readonly name: string;
  readonly rotated: number;
}

const subjects: readonly Subject[] = [
  { name: "GPT-2-medium shape", rotated: 0 },
  { name: "the same with GPT-J's rotation", rotated: 16 },
  { name: "the same with LLaMA's rotation", rotated: 64 },
];

/** What each layer keeps. */
type Caches = (layer: number) => CacheShape;

function cachesOf({ rotated }: Subject): Record<"dense" | "perHead" | "latent", Caches> {
  const [r1, r2] = ranks;
  const key = rotated > 0 ? headSize : r2;
  return {
    dense: () => [[heads, headSize], [heads, headSize]],
    perHead: () => [[heads, key], [heads, r2]],
    // The first layer keeps cosines and sines for all.
    latent: (layer) => [[1, r1 + (layer === 0 ? rotated : 0)], [1, 0]],
  };
}

function step(
  session: ort.InferenceSession,
  past: number,
  { caches, rotated }: { readonly caches: Caches; readonly rotated: number },
): () => Promise<unknown> {
  const tensor = (...shape: number[]): ort.Tensor => {
    const count = shape.reduce((product, length) => product * length, 1);
    return new ort.Tensor("float32", Float32Array.from({ length: count }, () => Math.random() - 0.5), shape);
  };
  const feeds: Record<string, ort.Tensor> = {
    hidden: tensor(1, 1, sizes.hiddenSize),
    mask: new ort.Tensor("float32", new Float32Array(past + 1), [1, 1, 1, past + 1]),
    ...rotated > 0 ? { positions: new ort.Tensor("int64", BigInt64Array.of(BigInt(past)), [1, 1]) } : {},
  };
  for (let layer = 0; layer < sizes.layers; layer++) {
    const cache = caches(layer);
    cacheNames(layer).past.forEach((name, i) => feeds[name] = tensor(1, cache[i]![0], past, cache[i]![1]));
  }
  return () => session.run(feeds);
}

/** Bytes of the cache of some tokens, in MB. */
function megabytes(tokens: number, caches: Caches): string {
  const numbers = Array.from({ length: sizes.layers }, (_, layer) => {
    const [key, value] = caches(layer);
    return key[0] * key[1] + value[0] * value[1];
  });
  return (tokens * numbers.reduce((a, b) => a + b) * 4 / 1e6).toFixed(1);
}

/** Times dense and factored steps in turn. */
export async function benchDecode(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const subject of subjects) results.push(...await benchSubject(subject));
  return results;
}

async function benchSubject(subject: Subject): Promise<BenchResult[]> {
  const { rotated } = subject;
  const model = syntheticDecoder({ ...sizes, rotated });
  const caches = cachesOf(subject);
  const dense = await openSession(model, "stock");
  const small = await openSession(withRandomFactors(model, { ranks, cache: "compressed" }), "served");
  const latent = await openSession(withRandomFactors(model, { ranks, cache: "compressed", latent: true }), "served");
  const results: BenchResult[] = [];
  for (const [past, prototype] of contexts) {
    const runs = [
      step(dense, past, { caches: caches.dense, rotated }),
      step(small, past, { caches: caches.perHead, rotated }),
      step(latent, past, { caches: caches.latent, rotated }),
    ];
    const [denseSeconds, perHeadSeconds, latentSeconds] = await runInTurn(runs, rounds);
    const name = `${subject.name}, one token after ${past}, ranks ${ranks.join(",")}`;
    const compared = `cache ${megabytes(past, caches.perHead)} MB instead of ${megabytes(past, caches.dense)} MB`;
    results.push(
      comparison({
        name,
        baseline: "the dense model in ONNX Runtime",
        note: rotated > 0 ? compared : `${compared}; a prototype ran ${prototype} times`,
      }, { seconds: perHeadSeconds!, baselineSeconds: denseSeconds! }),
      comparison({
        name: `${name}, latent cache`,
        baseline: rotated > 0 ? "r2 numbers per head, whole keys, in the cache" : "r2 numbers per head in the cache",
        note: `cache ${megabytes(past, caches.latent)} MB instead of ${megabytes(past, caches.perHead)} MB`,
      }, { seconds: latentSeconds!, baselineSeconds: perHeadSeconds! }),
    );
  }
  await dense.release();
  await small.release();
  await latent.release();
  return results;
}
