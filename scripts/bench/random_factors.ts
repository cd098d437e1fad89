/**
 * Random factors for benchmarks of inference, where only their sizes matter.
 *
 * @module
 */
import * as ort from "../../src/onnx_runtime.ts";
import { findFeedForward, rewriteFeedForward } from "../../src/attention/feed_forward/mod.ts";
import {
  chooseForm,
  findAttention,
  type FormOptions,
  rewriteFactored,
  withMergedOutput,
} from "../../src/attention/mod.ts";
import { encodeModel, type OnnxModel } from "../../src/onnx/model.ts";
import type { Ranks } from "../../src/tucker/types.ts";

/** What runs in factors. */
export interface Factored extends Pick<FormOptions, "cache"> {
  readonly ranks: Ranks;
  /** Whether a compressed cache holds z. */
  readonly latent?: boolean;
  /** Rank of both feed-forward matrices; whole without it. */
  readonly feedForwardRank?: number;
}

/** Every attention block, and the feed-forward networks where asked for, with random factors as initializers. */
export function withRandomFactors(
  model: OnnxModel,
  { ranks: [r1, r2, r3], cache, latent = false, feedForwardRank }: Factored,
): OnnxModel {
  const options = { r3, ...(cache === undefined ? {} : { cache }) };
  const forms = new Map(
    findAttention(model).blocks.map((block) => {
      const chosen = chooseForm(block, "tucker4", options);
      const form = withMergedOutput(chosen, [block.heads * r2, r1], block.hiddenSize);
      return [block.layer, latent ? { ...form, latent: ["key", "value"] as const } : form];
    }),
  );
  const size = (dimension: number | string): number => {
    if (typeof dimension === "number") return dimension;
    const [count, name] = dimension.includes("*") ? dimension.split("*") as [string, string] : ["1", dimension];
    return Number(count) * (name.endsWith("r2") ? r2 : r1);
  };
  const tensors = ({ shape }: { readonly shape: readonly (number | string)[] }) => random(shape.map(size));
  const attention = rewriteFactored(model, forms, { factors: "initializers", tensors }).model;
  if (feedForwardRank === undefined) return attention;
  const networks = findFeedForward(model).flatMap(({ layer, index, matrices }) =>
    matrices.map(({ name }) => ({ layer, index, matrix: name, form: "pair" as const }))
  );
  return rewriteFeedForward(model, attention, {
    forms: networks,
    source: {
      factors: "initializers",
      tensors: ({ shape }) => random(shape.map((length) => typeof length === "number" ? length : feedForwardRank)),
    },
  }).model;
}

/**
 * A session on the CPU with all of ONNX Runtime's graph optimisations and its own threads: `stock` as anyone has it, `served` with the
 * settings of tuckerd's sessions.
 */
export async function openSession(model: OnnxModel, as: "stock" | "served"): Promise<ort.InferenceSession> {
  return await ort.InferenceSession.create(encodeModel(model), {
    graphOptimizationLevel: "all",
    executionProviders: ["cpu"],
    logSeverityLevel: 3,
    ...(as === "served" ? { extra: ort.modelSettings("cpu") } : {}),
  });
}

/** A tensor of numbers of about the size of trained weights. */
function random(shape: readonly number[]): { shape: readonly number[]; data: Float32Array } {
  const count = shape.reduce((product, length) => product * length, 1);
  return { shape, data: Float32Array.from({ length: count }, () => (Math.random() - 0.5) / 16) };
}

/** How often each thing runs. */
export interface Rounds {
  readonly blocks: number;
  /** Timed runs in a block; one before them warms up. */
  readonly runs: number;
}

/** Milliseconds after which the threads of a session have stopped to spin for work. */
const REST = 50;

/**
 * Seconds of several sessions' runs. They take turns in blocks of runs, as a client runs one model over and over, with a rest
 * in between: threads of a session that spin for more work would take the cores from the next one.
 */
export async function runInTurn(
  sessions: readonly (() => Promise<unknown>)[],
  { blocks, runs }: Rounds,
): Promise<readonly (readonly number[])[]> {
  const times = sessions.map((): number[] => []);
  for (let block = 0; block < blocks; block++) {
    for (const [i, run] of sessions.entries()) {
      await new Promise((resolve) => setTimeout(resolve, REST));
      for (let at = 0; at <= runs; at++) {
        const began = performance.now();
        await run();
        if (at > 0) times[i]!.push((performance.now() - began) / 1000);
      }
    }
  }
  return times;
}
