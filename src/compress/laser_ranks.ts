/**
 * Ranks of truncated matrices: by LASER's rate, by energy or by ratio, for each matrix alone or for all under one budget.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import { laserRank } from "../tucker/mod.ts";
import type { LayerMatrix } from "./matrices.ts";
import type { CompressionTarget } from "./options.ts";

/** How a matrix's rank is found. */
export type LaserTarget = Exclude<CompressionTarget, { readonly kind: "ranks" }>;

/** A matrix and its singular values, descending. */
export interface MatrixSpectrum {
  readonly matrix: LayerMatrix;
  readonly values: ArrayLike<number>;
}

/** A matrix with its rank. */
export interface RankedMatrix {
  readonly matrix: LayerMatrix;
  readonly rank: number;
}

/**
 * The rank of a matrix for a rate, or for a ratio of its own: both follow from its sizes.
 *
 * @throws TuckerdError `invalid` where even rank 1 takes more numbers than the ratio leaves.
 */
export function rankBySize(
  { layer, matrix, shape: [m, n] }: LayerMatrix,
  target: Extract<LaserTarget, { readonly kind: "rate" | "ratio" }>,
): number {
  if (target.kind === "rate") return laserRank([m, n], target.rate);
  const rank = Math.floor(m * n / (target.ratio * (m + n)));
  if (rank >= 1) return Math.min(rank, m, n);
  const most = (m * n / (m + n)).toPrecision(3);
  throw new TuckerdError(
    "invalid",
    `layer ${layer}, ${matrix}: no rank of a ${m}×${n} matrix reaches a ratio of ${target.ratio}; ask for ${most} or less`,
  );
}

/** The smallest rank of a matrix that keeps a share of its energy (squared norm). */
export function rankByEnergy(values: ArrayLike<number>, energy: number): number {
  const total = energyOf(values, values.length);
  const wanted = Math.min(energy, 1 - 1e-12) * total; // all ranks keep everything but rounding
  let kept = 0;
  for (let rank = 1; rank <= values.length; rank++) {
    kept += values[rank - 1]! ** 2;
    if (kept >= wanted) return rank;
  }
  return Math.max(1, values.length);
}

/** ‖W − Ŵ‖F / ‖W‖F of the best approximation in a rank (Eckart–Young). */
export function truncationError(values: ArrayLike<number>, rank: number): number {
  const total = energyOf(values, values.length);
  let lost = 0;
  for (let i = values.length - 1; i >= rank; i--) lost += values[i]! ** 2;
  return total === 0 ? 0 : Math.sqrt(lost / total);
}

/**
 * Ranks of several matrices under one target: the ratio holds for their numbers together, or the energy for the mean of the
 * shares that they keep. One more rank of a matrix always costs its rows and columns, and gains less each time, so taking the steps
 * in the order of gain per number is optimal but for what the last step leaves over.
 *
 * @throws TuckerdError `invalid` where even ranks of 1 take more numbers than the ratio leaves.
 */
export function ranksTogether(
  spectra: readonly MatrixSpectrum[],
  target: Extract<LaserTarget, { readonly kind: "energy" | "ratio" }>,
): RankedMatrix[] {
  const ranks = spectra.map(() => 1);
  const totals = spectra.map(({ values }) => energyOf(values, values.length));
  const share = (at: number, step: number): number =>
    totals[at] === 0 ? 0 : spectra[at]!.values[step]! ** 2 / totals[at]!;
  const cost = spectra.map(({ matrix: { shape: [m, n] } }) => m + n);
  const steps = spectra.flatMap(({ values }, at) =>
    Array.from({ length: Math.max(0, values.length - 1) }, (_, i) => ({ at, gain: share(at, i + 1) }))
  ).sort((a, b) => b.gain / cost[b.at]! - a.gain / cost[a.at]!);
  const numbers = spectra.reduce((sum, { matrix: { shape: [m, n] } }) => sum + m * n, 0);
  let left = target.kind === "ratio" ? numbers / target.ratio - cost.reduce((sum, each) => sum + each, 0) : Infinity;
  if (left < 0) {
    throw new TuckerdError(
      "invalid",
      `no ranks of the chosen matrices reach a ratio of ${
        (target as { ratio: number }).ratio
      } together; ask for a lower one`,
    );
  }
  let missing = target.kind === "energy"
    ? Math.min(target.energy, 1 - 1e-12) * spectra.length - spectra.reduce((sum, _, at) => sum + share(at, 0), 0)
    : Infinity;
  for (const { at, gain } of steps) {
    if (missing <= 0) break;
    if (cost[at]! > left) continue; // a smaller matrix's step may still fit
    ranks[at]!++;
    left -= cost[at]!;
    missing -= gain;
  }
  return spectra.map(({ matrix }, at) => ({ matrix, rank: ranks[at]! }));
}

function energyOf(values: ArrayLike<number>, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += values[i]! ** 2;
  return sum;
}
