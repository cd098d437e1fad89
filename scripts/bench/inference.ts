/**
 * Speed of a factored model against the dense one in the same ONNX Runtime with all its graph optimisations: a BERT-base shape (12 layers,
 * 768, 12 heads, feed-forward 3072). Factors are random, since only their sizes matter for time; runs take turns.
 *
 * @module
 */
import * as ort from "onnxruntime-node";
import { chooseForm, findAttention, rewriteFactored } from "../../src/attention/mod.ts";
import type { FactorSlot } from "../../src/attention/types.ts";
import { encodeModel, loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { writeSyntheticModel } from "./synthetic_model.ts";
import { type BenchResult, comparison } from "./types.ts";

const rounds = 7;
const sizes = { layers: 12, hiddenSize: 768, heads: 12, headSize: 64, feedForward: 3072, weights: "float32" } as const;
const rankChoices: readonly { readonly ranks: Ranks; readonly limit: number }[] = [
  { ranks: [256, 32, 4], limit: 1.30 },
  { ranks: [128, 16, 4], limit: 1.44 },
];
const lengths = [128, 384];

/** Every attention block with random factors of the given ranks. */
function factored(model: OnnxModel, [r1, r2, r3]: Ranks): OnnxModel {
  const forms = new Map(
    findAttention(model).blocks.map((block) => [block.layer, chooseForm(block, "tucker4", { r3 })]),
  );
  const size = (dimension: number | string): number => {
    if (typeof dimension === "number") return dimension;
    const [count, name] = dimension.includes("*") ? dimension.split("*") as [string, string] : ["1", dimension];
    return Number(count) * (name.endsWith("r2") ? r2 : r1);
  };
  const tensors = ({ shape }: FactorSlot) => {
    const dimensions = shape.map(size);
    const count = dimensions.reduce((product, length) => product * length, 1);
    return { shape: dimensions, data: Float32Array.from({ length: count }, () => (Math.random() - 0.5) / 16) };
  };
  return rewriteFactored(model, forms, { factors: "initializers", tensors }).model;
}

async function open(model: OnnxModel): Promise<ort.InferenceSession> {
  return await ort.InferenceSession.create(encodeModel(model), {
    graphOptimizationLevel: "all",
    executionProviders: ["cpu"],
    logSeverityLevel: 3,
  });
}

async function runSeconds(session: ort.InferenceSession, length: number): Promise<number> {
  const hidden = Float32Array.from({ length: length * sizes.hiddenSize }, () => Math.random() - 0.5);
  const feeds = {
    hidden: new ort.Tensor("float32", hidden, [1, length, sizes.hiddenSize]),
    mask: new ort.Tensor("float32", new Float32Array(length), [1, 1, 1, length]),
  };
  const began = performance.now();
  await session.run(feeds);
  return (performance.now() - began) / 1000;
}

/** Times dense and factored runs in turn. */
export async function benchInference(): Promise<BenchResult[]> {
  const folder = await Deno.makeTempDir();
  const results: BenchResult[] = [];
  try {
    await writeSyntheticModel(folder, sizes);
    const model = await loadModel(`${folder}/model.onnx`);
    const dense = await open(model);
    for (const { ranks, limit } of rankChoices) {
      const small = await open(factored(model, ranks));
      for (const length of lengths) {
        const seconds: number[] = [], baselineSeconds: number[] = [];
        for (let round = 0; round <= rounds; round++) {
          const times = [await runSeconds(dense, length), await runSeconds(small, length)] as const;
          if (round === 0) continue; // warms up
          baselineSeconds.push(times[0]);
          seconds.push(times[1]);
        }
        results.push(comparison({
          name: `BERT-base shape, ${length} tokens, ranks ${ranks.join(",")}`,
          baseline: "the dense model in ONNX Runtime",
          note: `counting operations, the limit with a dense feed-forward is ${limit} at 128 tokens`,
        }, { seconds, baselineSeconds }));
      }
      await small.release();
    }
    await dense.release();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return results;
}
