/**
 * Mode `auto`: for one layer the best of the modes at equal parameters, or the smallest at equal energy, by error tables
 * of all three.
 *
 * @module
 */
import { type AttentionWeights, MATRICES } from "../attention/types.ts";
import { TuckerdError } from "../errors.ts";
import { ErrorTable } from "./error_table.ts";
import { shareEnergy, shareRatio } from "./global_budget.ts";
import { hosvd, type HosvdOptions } from "./hosvd.ts";
import type { TuckerOps } from "./ops.ts";
import { bestWithin, cheapestKeeping, type RankChoice, type RankCost, tuckerCost } from "./rank_choice.ts";
import { layerParameters, type LayerShape } from "./ranks.ts";
import type { LayerMode, Ranks } from "./types.ts";

/** Errors by ranks in every mode; all four matrices get the same ranks. */
export interface ModeTables {
  readonly shape: LayerShape;
  readonly tucker4: ErrorTable;
  /** d×h×1: each matrix decomposed alone at (r1, r2). */
  readonly tucker3: ErrorTable;
  /** r×1×1: each matrix by its own singular vectors. */
  readonly lowRank: ErrorTable;
}

/** A mode with its ranks. */
export interface ModeChoice {
  readonly mode: Extract<LayerMode, "4d-tucker" | "3d-tucker" | "laser">;
  /** (r1, r2, r3); for `3d-tucker` r3 is 4 and means nothing; for `laser` absent. */
  readonly ranks?: Ranks;
  /** For `laser`. */
  readonly rank?: number;
  readonly parameters: number;
  readonly energy: number;
}

/** What is wanted of the layer. */
export type ModeTarget = { readonly kind: "energy"; readonly energy: number } | {
  readonly kind: "ratio";
  readonly ratio: number;
};

/** Decomposes a layer in all modes without truncation and keeps the errors. */
export async function modeTables(
  weights: AttentionWeights,
  options: Omit<HosvdOptions, "matrices">,
  ops: TuckerOps,
): Promise<ModeTables> {
  const { hiddenSize, headSize, heads } = weights;
  const together = await hosvd(weights, options, ops);
  const tucker3 = new Float64Array(hiddenSize * headSize);
  const ranks = Math.min(hiddenSize, heads * headSize);
  const lowRank = new Float64Array(ranks);
  let total = 0;
  for (const name of MATRICES) {
    const alone = await hosvd(weights, { ...options, balance: false, matrices: [name] }, ops);
    const { hidden } = alone.singularValues; // the hidden mode's unfolding of one matrix is the matrix itself
    const norm2 = hidden.reduce((sum, value) => sum + value ** 2, 0);
    total += norm2;
    for (let i = 0; i < tucker3.length; i++) tucker3[i]! += alone.errors.kept[i]! * norm2;
    for (let i = 0, kept = 0; i < ranks; i++) lowRank[i]! += kept += hidden[i]! ** 2;
  }
  const share = (table: Float64Array): Float64Array => total === 0 ? table.fill(1) : table.map((sum) => sum / total);
  return {
    shape: [hiddenSize, headSize, 4, heads],
    tucker4: together.errors,
    tucker3: new ErrorTable([hiddenSize, headSize, 1], share(tucker3)),
    lowRank: new ErrorTable([ranks, 1, 1], share(lowRank)),
  };
}

/**
 * The best mode: least error within the parameters that a ratio leaves, or fewest parameters that keep an energy.
 *
 * @param modes what may be chosen; all three by default
 * @throws TuckerdError `invalid` for a ratio that no mode reaches.
 */
export function chooseMode(
  tables: ModeTables,
  target: ModeTarget,
  modes: readonly LayerMode[] = ["4d-tucker", "3d-tucker", "laser"],
): ModeChoice {
  const { shape } = tables;
  const candidates: ModeChoice[] = [];
  for (const { mode, errors, cost } of modesOf(tables)) {
    if (!modes.includes(mode)) continue;
    const choice = target.kind === "ratio"
      ? bestWithin(errors, cost, layerParameters(shape) / target.ratio)
      : cheapestKeeping(errors, cost, target.energy);
    if (choice === undefined) continue;
    candidates.push(inMode(mode, choice));
  }
  const better = (a: ModeChoice, b: ModeChoice): boolean =>
    target.kind === "ratio" ? a.energy > b.energy : a.parameters < b.parameters;
  const best = candidates.reduce<ModeChoice | undefined>(
    (winner, choice) => winner === undefined || better(choice, winner) ? choice : winner,
    undefined,
  );
  if (best !== undefined) return best;
  throw new TuckerdError("invalid", `no mode reaches the ${target.kind} asked for with layers of ${shape.join("×")}`);
}

/**
 * The modes of several layers under one target: the ratio holds for their parameters together, or the energy for the mean of the shares
 * that they keep.
 *
 * @param modes what may be chosen; all three by default
 * @throws TuckerdError `invalid` for a ratio that no modes reach.
 */
export function chooseModes(
  layers: readonly ModeTables[],
  target: ModeTarget,
  modes: readonly LayerMode[] = ["4d-tucker", "3d-tucker", "laser"],
): ModeChoice[] {
  const allowed = layers.map((tables) => modesOf(tables).filter(({ mode }) => modes.includes(mode)));
  const given = layers.map(({ shape }, i) => ({ shape, tables: allowed[i]! }));
  const choices = target.kind === "ratio" ? shareRatio(given, target.ratio) : shareEnergy(given, target.energy);
  return choices.map((choice, i) => inMode(allowed[i]![choice.table]!.mode, choice));
}

function inMode(mode: ModeChoice["mode"], { ranks: [r1, r2, r3], parameters, energy }: RankChoice): ModeChoice {
  const ranks = mode === "laser" ? { rank: r1 } : { ranks: [r1, r2, mode === "3d-tucker" ? 4 : r3] as const };
  return { mode, ...ranks, parameters, energy };
}

interface ModeErrors {
  readonly mode: ModeChoice["mode"];
  readonly errors: ErrorTable;
  readonly cost: RankCost;
}

function modesOf({ shape, tucker4, tucker3, lowRank }: ModeTables): ModeErrors[] {
  const [hidden, headSize, stack, heads] = shape;
  return [
    { mode: "4d-tucker", errors: tucker4, cost: tuckerCost(shape) },
    {
      mode: "3d-tucker",
      errors: tucker3,
      cost: { each: (r2) => stack * (r2 * heads + hidden), base: (r2) => stack * headSize * r2 },
    },
    { mode: "laser", errors: lowRank, cost: { each: () => stack * (hidden + heads * headSize), base: () => 0 } },
  ];
}
