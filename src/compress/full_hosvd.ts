/**
 * A layer's full HOSVD, kept as a factor file, and decompositions at any ranks sliced from it (`algorithm` `hosvd`): only the
 * first one reads the weights.
 *
 * @module
 */
import type { AttentionWeights } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { log } from "../log.ts";
import { hosvd, type LayerPlace, truncateHosvd } from "../tucker/mod.ts";
import type { TuckerFactors } from "../tucker/types.ts";
import { decodeFactorFile, encodeFactorFile, writeAtomically } from "./factor_file.ts";
import { fromFactorFile, type StoredLayer, toFactorFile } from "./layer_file.ts";
import type { LayerTask } from "./layer_task.ts";
import type { OpsSource, UsedOps } from "./ops_source.ts";

/** Where a full HOSVD comes from. */
export interface FullHosvdSource {
  /** Its file, there or not. */
  readonly path: string;
  /** Reads the layer's weights; called only where the file isn't there. */
  readonly weights: () => AttentionWeights;
  readonly ops: OpsSource;
  readonly where: LayerPlace;
}

/**
 * A layer at the task's ranks, sliced.
 *
 * @throws TuckerdError `invalid` for weights or ranks that can't be decomposed; `failed` where the full HOSVD can't be kept
 */
export async function slicedLayer(task: LayerTask, source: FullHosvdSource): Promise<StoredLayer> {
  const start = performance.now();
  if (task.ranks === undefined) throw new TypeError(`layer ${task.layer}: slicing needs ranks`);
  const { factors, ops } = await readFull(source.path) ?? await computeFull(task, source);
  const sliced = truncateHosvd(factors, task.ranks, source.where);
  const seconds = (performance.now() - start) / 1000;
  return { decomposition: { ...sliced, sweeps: 0, converged: true, seconds }, ...ops };
}

interface FullHosvd {
  readonly factors: TuckerFactors;
  readonly ops: UsedOps;
}

/** The kept one; undefined where there is none, or none that is whole. */
async function readFull(path: string): Promise<FullHosvd | undefined> {
  try {
    const { decomposition, ...ops } = fromFactorFile(decodeFactorFile(await Deno.readFile(path), path), path);
    if (decomposition.factors.kind === "tucker4") return { factors: decomposition.factors.factors, ops };
    throw new TuckerdError("bad-model", `${path} holds no Tucker factors`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (!(error instanceof TuckerdError)) throw error;
    log(0, `${error.message}; computing it again`);
    return undefined;
  }
}

async function computeFull(
  { layout, balance }: LayerTask,
  { path, weights, ops: source, where }: FullHosvdSource,
): Promise<FullHosvd> {
  const start = performance.now();
  const { value: { factors }, ops } = await source.use((ops) => hosvd(weights(), { layout, balance, where }, ops));
  const decomposition = {
    factors: { kind: "tucker4", factors },
    relativeError: 0,
    matrixErrors: { q: 0, k: 0, v: 0, o: 0 },
    sweeps: 0,
    converged: true,
    seconds: (performance.now() - start) / 1000,
  } as const;
  await writeAtomically(path, encodeFactorFile(toFactorFile({ decomposition, ...ops })));
  return { factors, ops };
}
