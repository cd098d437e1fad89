/**
 * Ranks that a user didn't give: chosen from error tables, by energy or by a budget of parameters.
 *
 * @module
 */
import { TuckerdError } from "../errors.ts";
import type { ErrorTable } from "./error_table.ts";
import { compressedParameters, layerParameters, type LayerShape } from "./ranks.ts";
import type { Ranks } from "./types.ts";

/** Parameters that ranks cost: r1 · `each`(r2, r3) + `base`(r2, r3). */
export interface RankCost {
  each(r2: number, r3: number): number;
  base(r2: number, r3: number): number;
}

/** A choice of ranks, what it costs, and the share of the energy that it keeps. */
export interface RankChoice {
  readonly ranks: Ranks;
  readonly parameters: number;
  readonly energy: number;
}

/** One layer: its errors by ranks, and its sizes. */
export interface RankedLayer {
  readonly errors: ErrorTable;
  readonly shape: LayerShape;
}

/** Cost of a 4-D Tucker decomposition of a layer. */
export function tuckerCost(shape: LayerShape): RankCost {
  const base = (r2: number, r3: number): number => compressedParameters(shape, [0, r2, r3]);
  return { base, each: (r2, r3) => compressedParameters(shape, [1, r2, r3]) - base(r2, r3) };
}

/**
 * The ranks with the fewest parameters that keep at least `energy` (1 − relative error²).
 *
 * @throws TuckerdError `invalid` for an energy outside (0, 1].
 */
export function ranksForEnergy({ errors, shape }: RankedLayer, energy: number): RankChoice {
  checkEnergy(energy);
  return cheapestKeeping(errors, tuckerCost(shape), energy);
}

/**
 * The ranks with the lowest error whose compression ratio is at least `ratio`.
 *
 * @throws TuckerdError `invalid` for a ratio that no ranks reach.
 */
export function ranksForRatio({ errors, shape }: RankedLayer, ratio: number): RankChoice {
  return bestWithin(errors, tuckerCost(shape), budgetFor([shape], ratio)) ?? unreachable(ratio);
}

/**
 * Parameters that a ratio leaves to layers of these shapes.
 *
 * @throws TuckerdError `invalid` for a ratio that isn't a number above 0
 */
export function budgetFor(shapes: readonly LayerShape[], ratio: number): number {
  if (!(ratio > 0 && Number.isFinite(ratio))) {
    throw new TuckerdError("invalid", `the compression ratio must be a number above 0, got ${ratio}`);
  }
  return shapes.reduce((sum, shape) => sum + layerParameters(shape), 0) / ratio;
}

/** @throws TuckerdError `invalid` always: for a ratio that no ranks reach */
export function unreachable(ratio: number): never {
  throw new TuckerdError(
    "invalid",
    `no ranks reach a compression ratio of ${ratio}: even ranks 1,1,1 take more parameters; ask for a lower ratio`,
  );
}

/** Calls `visit` with every (r2, r3) of a table. */
export function eachPair({ sizes: [, headSize, stack] }: ErrorTable, visit: (r2: number, r3: number) => void): void {
  for (let r2 = 1; r2 <= headSize; r2++) for (let r3 = 1; r3 <= stack; r3++) visit(r2, r3);
}

/** @throws TuckerdError `invalid` for an energy outside (0, 1]. */
export function checkEnergy(energy: number): void {
  if (energy > 0 && energy <= 1) return;
  throw new TuckerdError("invalid", `energy must be above 0 and at most 1 (the share kept), got ${energy}`);
}

/** The choice that keeps most within a budget; undefined where even the smallest ranks cost more. */
export function bestWithin(errors: ErrorTable, cost: RankCost, budget: number): RankChoice | undefined {
  let best: RankChoice | undefined;
  eachPair(errors, (r2, r3) => {
    const r1 = Math.min(errors.sizes[0], Math.floor((budget - cost.base(r2, r3)) / cost.each(r2, r3)));
    if (r1 < 1) return;
    const choice = choiceOf(errors, cost, [r1, r2, r3]);
    if (best === undefined || choice.energy > best.energy) best = choice;
  });
  return best;
}

/** The cheapest choice that keeps at least a share of the energy. */
export function cheapestKeeping(errors: ErrorTable, cost: RankCost, energy: number): RankChoice {
  const target = Math.min(energy, 1 - 1e-12); // full ranks keep everything but rounding
  let best: RankChoice | undefined;
  eachPair(errors, (r2, r3) => {
    let [low, high] = [1, errors.sizes[0]];
    if (errors.energy([high, r2, r3]) < target) return;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (errors.energy([middle, r2, r3]) >= target) high = middle;
      else low = middle + 1;
    }
    const choice = choiceOf(errors, cost, [low, r2, r3]);
    if (best === undefined || choice.parameters < best.parameters) best = choice;
  });
  return best ?? choiceOf(errors, cost, [...errors.sizes]);
}

/** Ranks with their cost and energy. */
export function choiceOf(errors: ErrorTable, cost: RankCost, ranks: Ranks): RankChoice {
  const [r1, r2, r3] = ranks;
  return { ranks, parameters: r1 * cost.each(r2, r3) + cost.base(r2, r3), energy: errors.energy(ranks) };
}
