/**
 * Speed of a factored model against the dense one in the same ONNX Runtime with all its graph optimisations: a BERT-base shape (12 layers,
 * 768, 12 heads, feed-forward 3072). Factors are random, since only their sizes matter for time; runs take turns.
 *
 * @module
 */
import * as ort from "../../src/onnx_runtime.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { type Factored, openSession, runInTurn, withRandomFactors } from "./random_factors.ts";
import { writeSyntheticModel } from "./synthetic_model.ts";
import { type BenchResult, comparison, median } from "./types.ts";

const rounds = { blocks: 5, runs: 3 };
const sizes = { layers: 12, hiddenSize: 768, heads: 12, headSize: 64, feedForward: 3072, weights: "float32" } as const;
const choices: readonly { readonly factors: Factored; readonly note: string }[] = [
  {
    factors: { ranks: [256, 32, 4] },
    note: "counting operations, the limit with a dense feed-forward is 1.30 at 128 tokens",
  },
  {
    factors: { ranks: [128, 16, 4] },
    note: "counting operations, the limit with a dense feed-forward is 1.44 at 128 tokens",
  },
  {
    factors: { ranks: [256, 32, 4], feedForwardRank: 192 },
    note: "LASER's feed-forward at a quarter of the rank; the aim is 2",
  },
];
const lengths = [128, 384];

function run(session: ort.InferenceSession, length: number): () => Promise<unknown> {
  const hidden = Float32Array.from({ length: length * sizes.hiddenSize }, () => Math.random() - 0.5);
  const feeds = {
    hidden: new ort.Tensor("float32", hidden, [1, length, sizes.hiddenSize]),
    mask: new ort.Tensor("float32", new Float32Array(length), [1, 1, 1, length]),
  };
  return () => session.run(feeds);
}

/** Times dense and factored runs in turn. */
export async function benchInference(): Promise<BenchResult[]> {
  const folder = await Deno.makeTempDir();
  const results: BenchResult[] = [];
  try {
    await writeSyntheticModel(folder, sizes);
    const model = await loadModel(`${folder}/model.onnx`);
    const dense = await openSession(model, "stock");
    const served = await openSession(model, "served");
    for (const { factors, note } of choices) {
      const small = await openSession(withRandomFactors(model, factors), "served");
      for (const length of lengths) {
        const runs = [dense, served, small].map((session) => run(session, length));
        const [baselineSeconds, servedSeconds, seconds] = await runInTurn(runs, rounds);
        const laser = factors.feedForwardRank === undefined ? "" : `, feed-forward ${factors.feedForwardRank}`;
        results.push(comparison({
          name: `BERT-base shape, ${length} tokens, ranks ${factors.ranks.join(",")}${laser}`,
          baseline: "the dense model in ONNX Runtime",
          note: `${note}; against the dense model with the settings of tuckerd's sessions ${
            (median(servedSeconds!) / median(seconds!)).toFixed(2)
          } times`,
        }, { seconds: seconds!, baselineSeconds: baselineSeconds! }));
      }
      await small.release();
    }
    await dense.release();
    await served.release();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return results;
}
