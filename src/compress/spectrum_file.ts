/**
 * A layer's spectrum as a factor file, and back: singular values of each mode, and the error of every choice of ranks.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { ErrorTable, type Hosvd, type ModeTables } from "../tucker/mod.ts";
import type { FactorTensor } from "./artifact.ts";
import type { FactorFile } from "./factor_file.ts";

/** What is kept of a full HOSVD: enough for what-if curves, without its factors. */
export interface LayerSpectrum {
  /** Descending, in units of the weights. */
  readonly singularValues: {
    readonly hidden: Float32Array;
    readonly head: Float32Array;
    readonly stack: Float32Array;
  };
  /** Of the 4-D decomposition. */
  readonly errors: ErrorTable;
  /** Of the other modes, where they were asked for. */
  readonly modes: Pick<ModeTables, "tucker3" | "lowRank"> | undefined;
}

/** Lays a spectrum out as named tensors. Lost energy keeps its precision in float32 where kept energy is close to 1. */
export function toSpectrumFile(
  { singularValues, errors }: Pick<Hosvd, "singularValues" | "errors">,
  modes?: ModeTables,
): FactorFile {
  const vector = (values: Float64Array): FactorTensor => ({ shape: [values.length], data: Float32Array.from(values) });
  const lost = ({ sizes, kept }: ErrorTable): FactorTensor => ({
    shape: sizes,
    data: Float32Array.from(kept, (share) => 1 - share),
  });
  return {
    metadata: { tuckerd: "{}" },
    tensors: {
      hidden: vector(singularValues.hidden),
      head: vector(singularValues.headSize),
      stack: vector(singularValues.stack),
      lost: lost(errors),
      ...(modes === undefined ? {} : { lostTucker3: lost(modes.tucker3), lostLowRank: lost(modes.lowRank) }),
    },
  };
}

/**
 * Reads a spectrum back.
 *
 * @throws TuckerdError `bad-model` where a tensor is missing
 */
export function fromSpectrumFile(file: FactorFile, where: string): LayerSpectrum {
  const { hidden, head, stack, lost, lostTucker3, lostLowRank } = file.tensors;
  if (hidden === undefined || head === undefined || stack === undefined || lost === undefined) {
    throw new TuckerdError("bad-model", `${where} holds no spectrum`);
  }
  const others = lostTucker3 !== undefined && lostLowRank !== undefined;
  return {
    singularValues: { hidden: hidden.data, head: head.data, stack: stack.data },
    errors: tableOf(lost),
    modes: others ? { tucker3: tableOf(lostTucker3), lowRank: tableOf(lostLowRank) } : undefined,
  };
}

function tableOf({ shape: [d = 0, h = 0, s = 0], data }: FactorTensor): ErrorTable {
  return new ErrorTable([d, h, s], Float64Array.from(data, (share) => 1 - share));
}
