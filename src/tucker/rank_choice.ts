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
  if (!(energy > 0 && energy <= 1)) {
    throw new TuckerdError("invalid", `energy must be above 0 and at most 1 (the share kept), got ${energy}`);
  }
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
 * Ranks of several layers under one budget: the ratio holds for their parameters together, and the mean squared relative
 * error of the layers is made small. Layers whose error falls faster get more.
 *
 * Every layer minimises error² + λ·parameters; the price λ is found by bisection (each λ gives a point of the lower convex
 * hull, which a greedy exchange of parameters between layers would reach as well). What the budget leaves over is spent
 * greedily, and ranks chosen per layer at the same ratio are taken instead should they be better.
 *
 * @throws TuckerdError `invalid` for a ratio that no ranks reach.
 */
export function ranksForGlobalRatio(layers: readonly RankedLayer[], ratio: number): RankChoice[] {
  const budget = budgetFor(layers.map(({ shape }) => shape), ratio);
  const priced = lastThatHolds(layers, [0, -40], (choices) => parametersOf(choices) <= budget) ?? unreachable(ratio);
  const hull = spendRest(layers, priced, budget);
  const alone = layers.map(({ errors, shape }) => bestWithin(errors, tuckerCost(shape), budgetFor([shape], ratio)));
  const energy = (choices: readonly (RankChoice | undefined)[]): number =>
    choices.reduce((sum, choice) => sum + (choice?.energy ?? -Infinity), 0);
  return energy(alone) > energy(hull) ? alone as RankChoice[] : hull;
}

/**
 * Ranks of several layers that keep an energy together: the mean of the shares that they keep is at least `energy`, with few
 * parameters. The price of a parameter is found as in `ranksForGlobalRatio`; ranks chosen per layer are taken instead should they be cheaper.
 *
 * @throws TuckerdError `invalid` for an energy outside (0, 1].
 */
export function ranksForGlobalEnergy(layers: readonly RankedLayer[], energy: number): RankChoice[] {
  const alone = layers.map((layer) => ranksForEnergy(layer, energy));
  const wanted = Math.min(energy, 1 - 1e-12) * layers.length;
  const kept = (choices: readonly RankChoice[]): number => choices.reduce((sum, choice) => sum + choice.energy, 0);
  const hull = lastThatHolds(layers, [-40, 0], (choices) => kept(choices) >= wanted);
  if (hull === undefined) return alone;
  const trimmed = giveBack(layers, hull, kept(hull) - wanted);
  return parametersOf(trimmed) < parametersOf(alone) ? trimmed : alone;
}

/** Halvings of the search for a price. */
const PRICE_STEPS = 40;

/**
 * The layers' best choices at the last price, on the way from `good` to `bad`, at which a condition holds; undefined where it doesn't hold at
 * `good`. Prices are the log2 of a parameter's price in units of error².
 */
function lastThatHolds(
  layers: readonly RankedLayer[],
  [good, bad]: readonly [number, number],
  holds: (choices: readonly RankChoice[]) => boolean,
): RankChoice[] | undefined {
  const at = (price: number): RankChoice[] =>
    layers.map(({ errors, shape }) => bestAtPrice(errors, tuckerCost(shape), 2 ** price));
  let best = at(good);
  if (!holds(best)) return undefined;
  for (let step = 0; step < PRICE_STEPS; step++) {
    const middle = (good + bad) / 2;
    const choices = at(middle);
    if (holds(choices)) [good, best] = [middle, choices];
    else bad = middle;
  }
  return best;
}

function parametersOf(choices: readonly RankChoice[]): number {
  return choices.reduce((sum, choice) => sum + choice.parameters, 0);
}

/** Parameters that a ratio leaves to layers of these shapes. */
function budgetFor(shapes: readonly LayerShape[], ratio: number): number {
  if (!(ratio > 0 && Number.isFinite(ratio))) {
    throw new TuckerdError("invalid", `the compression ratio must be a number above 0, got ${ratio}`);
  }
  return shapes.reduce((sum, shape) => sum + layerParameters(shape), 0) / ratio;
}

function unreachable(ratio: number): never {
  throw new TuckerdError(
    "invalid",
    `no ranks reach a compression ratio of ${ratio}: even ranks 1,1,1 take more parameters; ask for a lower ratio`,
  );
}

/** Calls `visit` with every (r2, r3) of a table. */
function eachPair({ sizes: [, headSize, stack] }: ErrorTable, visit: (r2: number, r3: number) => void): void {
  for (let r2 = 1; r2 <= headSize; r2++) for (let r3 = 1; r3 <= stack; r3++) visit(r2, r3);
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

/** Values of r1 that are tried at a price; between them `spendRest` fills in. */
const HIDDEN_STEPS = 256;

function bestAtPrice(errors: ErrorTable, cost: RankCost, price: number): RankChoice {
  const step = Math.ceil(errors.sizes[0] / HIDDEN_STEPS);
  let [ranks, lowest]: [Ranks, number] = [[1, 1, 1], Infinity];
  eachPair(errors, (r2, r3) => {
    const [each, base] = [cost.each(r2, r3), cost.base(r2, r3)];
    for (let r1 = 1; r1 <= errors.sizes[0]; r1 += step) {
      const loss = 1 - errors.energy([r1, r2, r3]) + price * (r1 * each + base);
      if (loss < lowest) [ranks, lowest] = [[r1, r2, r3], loss];
    }
  });
  return choiceOf(errors, cost, ranks);
}

/** Raises single ranks, the one first that gains most energy per parameter, as long as the budget allows. */
function spendRest(layers: readonly RankedLayer[], start: readonly RankChoice[], budget: number): RankChoice[] {
  const choices = [...start];
  let left = budget - choices.reduce((sum, choice) => sum + choice.parameters, 0);
  for (;;) {
    let best: { readonly layer: number; readonly choice: RankChoice; readonly gain: number } | undefined;
    for (const [layer, { errors, shape }] of layers.entries()) {
      const current = choices[layer]!;
      for (const mode of [0, 1, 2]) {
        const ranks = current.ranks.with(mode, current.ranks[mode]! + 1) as unknown as Ranks;
        if (ranks[mode]! > errors.sizes[mode]!) continue;
        const choice = choiceOf(errors, tuckerCost(shape), ranks);
        const extra = choice.parameters - current.parameters;
        const gain = (choice.energy - current.energy) / extra;
        if (extra <= left && gain > (best?.gain ?? 0)) best = { layer, choice, gain };
      }
    }
    if (best === undefined) return choices;
    left -= best.choice.parameters - choices[best.layer]!.parameters;
    choices[best.layer] = best.choice;
  }
}

/** Lowers single ranks, the one first that saves most parameters per energy, as long as there is energy to spare. */
function giveBack(layers: readonly RankedLayer[], start: readonly RankChoice[], spare: number): RankChoice[] {
  const choices = [...start];
  for (;;) {
    let best: { readonly layer: number; readonly choice: RankChoice; readonly gain: number } | undefined;
    for (const [layer, { errors, shape }] of layers.entries()) {
      const current = choices[layer]!;
      for (const mode of [0, 1, 2]) {
        if (current.ranks[mode] === 1) continue;
        const ranks = current.ranks.with(mode, current.ranks[mode]! - 1) as unknown as Ranks;
        const choice = choiceOf(errors, tuckerCost(shape), ranks);
        const lost = current.energy - choice.energy;
        const gain = (current.parameters - choice.parameters) / Math.max(lost, Number.MIN_VALUE);
        if (lost <= spare && gain > (best?.gain ?? 0)) best = { layer, choice, gain };
      }
    }
    if (best === undefined) return choices;
    spare -= choices[best.layer]!.energy - best.choice.energy;
    choices[best.layer] = best.choice;
  }
}

function choiceOf(errors: ErrorTable, cost: RankCost, ranks: Ranks): RankChoice {
  const [r1, r2, r3] = ranks;
  return { ranks, parameters: r1 * cost.each(r2, r3) + cost.base(r2, r3), energy: errors.energy(ranks) };
}
