/**
 * A decomposed layer as a factor file, and back.
 *
 * @module
 */
import { z } from "zod";
import { MATRICES, type MatrixName } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import type { LayerDecomposition, LayerFactors, LowRankFactors, Tucker3Factors } from "../tucker/types.ts";
import type { FactorTensor } from "./artifact.ts";
import type { FactorFile } from "./factor_file.ts";

/** A decomposition, and where it was computed. */
export interface StoredLayer {
  readonly decomposition: LayerDecomposition;
  readonly backend: "webgpu" | "cpu";
  readonly adapter: string;
}

const Facts = z.object({
  kind: z.enum(["tucker4", "tucker3", "low-rank"]),
  relativeError: z.number(),
  matrixErrors: z.object({ q: z.number(), k: z.number(), v: z.number(), o: z.number() }),
  sweeps: z.number(),
  converged: z.boolean(),
  seconds: z.number(),
  backend: z.enum(["webgpu", "cpu"]),
  adapter: z.string(),
});

/** Lays a decomposition out as named tensors and facts. */
export function toFactorFile(layer: StoredLayer): FactorFile {
  const { factors, ...measured } = layer.decomposition;
  const facts = { ...measured, kind: factors.kind, backend: layer.backend, adapter: layer.adapter };
  return { metadata: { tuckerd: JSON.stringify(facts) }, tensors: tensorsOf(factors) };
}

function tensorsOf(factors: LayerFactors): Record<string, FactorTensor> {
  if (factors.kind === "tucker4") {
    const { u1, u2, u3, core, matrixScales, ranks: [r1, r2, r3] } = factors.factors;
    return {
      u1: { shape: [u1.length / r1, r1], data: u1 },
      u2: { shape: [u2.length / r2, r2], data: u2 },
      u3: { shape: [u3.length / r3, r3], data: u3 },
      core: { shape: [r1, r2, r3, core.length / (r1 * r2 * r3)], data: core },
      matrixScales: { shape: [4], data: Float32Array.from(matrixScales) },
    };
  }
  const tensors: Record<string, FactorTensor> = {};
  if (factors.kind === "tucker3") {
    for (const [name, { u1, u2, core, ranks: [r1, r2] }] of Object.entries(factors.matrices)) {
      tensors[`${name}.u1`] = { shape: [u1.length / r1, r1], data: u1 };
      tensors[`${name}.u2`] = { shape: [u2.length / r2, r2], data: u2 };
      tensors[`${name}.core`] = { shape: [r1, r2, core.length / (r1 * r2)], data: core };
    }
  } else {
    for (const [name, { left, right, rank }] of Object.entries(factors.matrices)) {
      tensors[`${name}.left`] = { shape: [left.length / rank, rank], data: left };
      tensors[`${name}.right`] = { shape: [rank, right.length / rank], data: right };
    }
  }
  return tensors;
}

/**
 * Reads a decomposition back.
 *
 * @throws TuckerdError `bad-model` where facts or tensors are missing
 */
export function fromFactorFile(file: FactorFile, where: string): StoredLayer {
  let facts: z.infer<typeof Facts>;
  try {
    facts = Facts.parse(JSON.parse(file.metadata["tuckerd"] ?? "null"));
  } catch (error) {
    throw new TuckerdError("bad-model", `${where} holds no facts of a decomposition`, { cause: error });
  }
  const { kind, backend, adapter, ...measured } = facts;
  return { decomposition: { ...measured, factors: factorsOf(kind, file, where) }, backend, adapter };
}

function factorsOf(kind: LayerFactors["kind"], file: FactorFile, where: string): LayerFactors {
  const tensor = (name: string): FactorTensor => {
    const found = file.tensors[name];
    if (found === undefined) throw new TuckerdError("bad-model", `${where} lacks the tensor "${name}"`);
    return found;
  };
  /** Last dimension of a factor matrix: its rank. */
  const columns = (matrix: FactorTensor): number => matrix.shape[1] ?? 0;
  if (kind === "tucker4") {
    const [u1, u2, u3] = [tensor("u1"), tensor("u2"), tensor("u3")];
    const [q = 1, k = 1, v = 1, o = 1] = tensor("matrixScales").data;
    return {
      kind,
      factors: {
        ranks: [columns(u1), columns(u2), columns(u3)],
        u1: u1.data,
        u2: u2.data,
        u3: u3.data,
        core: tensor("core").data,
        matrixScales: [q, k, v, o],
      },
    };
  }
  if (kind === "tucker3") {
    const matrices: Partial<Record<MatrixName, Tucker3Factors>> = {};
    for (const name of matricesIn(file)) {
      const [u1, u2] = [tensor(`${name}.u1`), tensor(`${name}.u2`)];
      const core = tensor(`${name}.core`).data;
      matrices[name] = { ranks: [columns(u1), columns(u2)], u1: u1.data, u2: u2.data, core };
    }
    return { kind, matrices };
  }
  const matrices: Partial<Record<MatrixName, LowRankFactors>> = {};
  for (const name of matricesIn(file)) {
    const left = tensor(`${name}.left`);
    matrices[name] = { rank: columns(left), left: left.data, right: tensor(`${name}.right`).data };
  }
  return { kind, matrices };
}

function matricesIn(file: FactorFile): readonly MatrixName[] {
  return MATRICES.filter((name) => Object.keys(file.tensors).some((key) => key.startsWith(`${name}.`)));
}
