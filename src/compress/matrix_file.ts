/**
 * A truncated matrix, or the singular values of one, as a factor file, and back.
 *
 * @module
 */
import { z } from "zod";
import { TuckerdError } from "../errors.ts";
import type { LowRankFactors } from "../tucker/types.ts";
import type { FactorFile } from "./factor_file.ts";

const Facts = z.object({
  relativeError: z.number(),
  seconds: z.number(),
  backend: z.enum(["webgpu", "cpu"]),
  adapter: z.string(),
});

/** A truncated matrix of a feed-forward network, how far it is from the original, and where it was computed. */
export interface StoredMatrix extends z.infer<typeof Facts> {
  readonly factors: LowRankFactors;
}

/** Lays a truncated matrix out as two tensors and facts. */
export function toMatrixFile({ factors: { left, right, rank }, ...facts }: StoredMatrix): FactorFile {
  return {
    metadata: { tuckerd: JSON.stringify(facts) },
    tensors: {
      left: { shape: [left.length / rank, rank], data: left },
      right: { shape: [rank, right.length / rank], data: right },
    },
  };
}

/**
 * Reads a truncated matrix back.
 *
 * @throws TuckerdError `bad-model` where facts or tensors are missing
 */
export function fromMatrixFile({ metadata, tensors: { left, right } }: FactorFile, where: string): StoredMatrix {
  if (left === undefined || right === undefined) {
    throw new TuckerdError("bad-model", `${where} holds no truncated matrix`);
  }
  let facts: z.infer<typeof Facts>;
  try {
    facts = Facts.parse(JSON.parse(metadata["tuckerd"] ?? "null"));
  } catch (error) {
    throw new TuckerdError("bad-model", `${where} holds no facts of a decomposition`, { cause: error });
  }
  return { ...facts, factors: { rank: right.shape[0] ?? 0, left: left.data, right: right.data } };
}

/** Lays singular values out as a tensor. */
export function toSingularValuesFile(values: Float64Array): FactorFile {
  return {
    metadata: { tuckerd: "{}" },
    tensors: { singularValues: { shape: [values.length], data: Float32Array.from(values) } },
  };
}

/**
 * Reads singular values back.
 *
 * @throws TuckerdError `bad-model` where they are missing
 */
export function fromSingularValuesFile({ tensors: { singularValues } }: FactorFile, where: string): Float32Array {
  if (singularValues === undefined) throw new TuckerdError("bad-model", `${where} holds no singular values`);
  return singularValues.data;
}
