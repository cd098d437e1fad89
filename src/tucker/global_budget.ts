/**
 * One budget for several layers: the parameters of all of them together, or the mean of the energies that they keep. A layer may be
 * decomposed by one of several tables (mode `auto`: one for each mode), and its parameters go where they lower the error most.
 *
 * Every layer minimises error² + λ·parameters over its tables and ranks; the price λ is found by bisection (each λ gives a point of the
 * lower convex hull, which a greedy exchange of parameters between layers would reach as well). What is left over is spent, or given
 * back, greedily; choices made for each layer alone, and the same ranks in all layers, are taken instead should they be better.
 *
 * @module
 */
import type { ErrorTable } from "./error_table.ts";
import {
  bestWithin,
  budgetFor,
  cheapestKeeping,
  checkEnergy,
  choiceOf,
  eachPair,
  type RankChoice,
  type RankCost,
  type RankedLayer,
  tuckerCost,
  unreachable,
} from "./rank_choice.ts";
import type { LayerShape } from "./ranks.ts";
import type { Ranks } from "./types.ts";

/** Errors of one way to decompose a layer, and what its ranks cost. */
export interface RankedTable {
  readonly errors: ErrorTable;
  readonly cost: RankCost;
}

/** A layer with the ways to decompose it, the same in every layer and in the same order. */
export interface LayerTables {
  readonly shape: LayerShape;
  readonly tables: readonly RankedTable[];
}

/** Ranks in one of a layer's tables. */
export interface TableChoice extends RankChoice {
  /** Index of the table. */
  readonly table: number;
}

/**
 * Choices whose parameters together are the layers' divided by `ratio`, or fewer.
 *
 * @throws TuckerdError `invalid` for a ratio that no ranks reach.
 */
export function shareRatio(layers: readonly LayerTables[], ratio: number): TableChoice[] {
  const budget = budgetFor(layers.map(({ shape }) => shape), ratio);
  const priced = lastThatHolds(layers, [0, -40], (choices) => parametersOf(choices) <= budget);
  const alone = layers.map(({ tables, shape }) =>
    bestOf(
      tables,
      ({ errors, cost }) => bestWithin(errors, cost, budgetFor([shape], ratio)),
      (a, b) => a.energy - b.energy,
    )
  );
  const candidates = [
    priced,
    alone.includes(undefined) ? undefined : alone as TableChoice[],
    ...layers[0]?.tables.map((_, table) => uniform(layers, table, budget)) ?? [],
  ].flatMap((choices) => choices === undefined ? [] : [spendRest(layers, choices, budget)]);
  return candidates.reduce<TableChoice[] | undefined>(
    (best, choices) => best === undefined || energyOf(choices) > energyOf(best) ? choices : best,
    undefined,
  ) ?? unreachable(ratio);
}

/**
 * Choices that keep `energy` in the mean of all layers, with few parameters.
 *
 * @throws TuckerdError `invalid` for an energy outside (0, 1].
 */
export function shareEnergy(layers: readonly LayerTables[], energy: number): TableChoice[] {
  checkEnergy(energy);
  const alone = layers.map(({ tables }) =>
    bestOf(tables, ({ errors, cost }) => cheapestKeeping(errors, cost, energy), (a, b) => b.parameters - a.parameters)!
  );
  const wanted = Math.min(energy, 1 - 1e-12) * layers.length;
  const hull = lastThatHolds(layers, [-40, 0], (choices) => energyOf(choices) >= wanted);
  const candidates = (hull === undefined ? [alone] : [hull, alone])
    .map((choices) => giveBack(layers, choices, energyOf(choices) - wanted));
  return candidates.reduce((best, choices) => parametersOf(choices) < parametersOf(best) ? choices : best);
}

/** Ranks of several layers under one ratio, all of them decomposed in 4-D. */
export function ranksForGlobalRatio(layers: readonly RankedLayer[], ratio: number): RankChoice[] {
  return shareRatio(layers.map(alone4), ratio);
}

/** Ranks of several layers that keep an energy together, all of them decomposed in 4-D. */
export function ranksForGlobalEnergy(layers: readonly RankedLayer[], energy: number): RankChoice[] {
  return shareEnergy(layers.map(alone4), energy);
}

function alone4({ errors, shape }: RankedLayer): LayerTables {
  return { shape, tables: [{ errors, cost: tuckerCost(shape) }] };
}

/** The best of the tables' choices; `compare` is positive where its first is the better one. */
function bestOf(
  tables: readonly RankedTable[],
  choose: (table: RankedTable) => RankChoice | undefined,
  compare: (a: RankChoice, b: RankChoice) => number,
): TableChoice | undefined {
  let best: TableChoice | undefined;
  for (const [table, each] of tables.entries()) {
    const choice = choose(each);
    if (choice !== undefined && (best === undefined || compare(choice, best) > 0)) best = { ...choice, table };
  }
  return best;
}

/** The best ranks that are the same in all layers, in one table; undefined where none are within the budget. */
function uniform(layers: readonly LayerTables[], table: number, budget: number): TableChoice[] | undefined {
  const own = layers.map(({ tables }) => tables[table]!);
  const sizes = [0, 1, 2].map((mode) => Math.min(...own.map(({ errors }) => errors.sizes[mode]!)));
  const [hidden, headSize, stack] = sizes as [number, number, number];
  const sum = (of: (table: RankedTable) => number): number => own.reduce((total, each) => total + of(each), 0);
  let best: { readonly ranks: Ranks; readonly energy: number } | undefined;
  for (let r2 = 1; r2 <= headSize; r2++) {
    for (let r3 = 1; r3 <= stack; r3++) {
      const left = budget - sum(({ cost }) => cost.base(r2, r3));
      const r1 = Math.min(hidden, Math.floor(left / sum(({ cost }) => cost.each(r2, r3))));
      if (r1 < 1) continue;
      const energy = sum(({ errors }) => errors.energy([r1, r2, r3]));
      if (best === undefined || energy > best.energy) best = { ranks: [r1, r2, r3], energy };
    }
  }
  return best && own.map(({ errors, cost }) => ({ ...choiceOf(errors, cost, best.ranks), table }));
}

/** Halvings of the search for a price. */
const PRICE_STEPS = 40;

/**
 * The layers' best choices at the last price, on the way from `good` to `bad`, at which a condition holds; undefined where it doesn't hold at
 * `good`. Prices are the log2 of a parameter's price in units of error².
 */
function lastThatHolds(
  layers: readonly LayerTables[],
  [good, bad]: readonly [number, number],
  holds: (choices: readonly TableChoice[]) => boolean,
): TableChoice[] | undefined {
  const at = (price: number): TableChoice[] =>
    layers.map(({ tables }) => {
      const loss = ({ energy, parameters }: RankChoice): number => 1 - energy + 2 ** price * parameters;
      return bestOf(tables, (table) => bestAtPrice(table, 2 ** price), (a, b) => loss(b) - loss(a))!;
    });
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

function energyOf(choices: readonly RankChoice[]): number {
  return choices.reduce((sum, choice) => sum + choice.energy, 0);
}

/** Values of r1 that are tried at a price; between them `spendRest` fills in. */
const HIDDEN_STEPS = 256;

function bestAtPrice({ errors, cost }: RankedTable, price: number): RankChoice {
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
function spendRest(layers: readonly LayerTables[], start: readonly TableChoice[], budget: number): TableChoice[] {
  let left = budget - start.reduce((sum, choice) => sum + choice.parameters, 0);
  return stepwise(layers, start, {
    step: 1,
    gain: (from, to) => {
      const extra = to.parameters - from.parameters;
      return extra <= left ? (to.energy - from.energy) / extra : 0;
    },
    taken: (from, to) => left -= to.parameters - from.parameters,
  });
}

/** Lowers single ranks, the one first that saves most parameters per energy, as long as there is energy to spare. */
function giveBack(layers: readonly LayerTables[], start: readonly TableChoice[], spare: number): TableChoice[] {
  return stepwise(layers, start, {
    step: -1,
    gain: (from, to) => {
      const lost = from.energy - to.energy;
      return lost <= spare ? (from.parameters - to.parameters) / Math.max(lost, Number.MIN_VALUE) : 0;
    },
    taken: (from, to) => spare -= from.energy - to.energy,
  });
}

/** How single ranks are changed one after the other. */
interface Steps {
  readonly step: 1 | -1;
  /** What a change is worth; nothing at 0 or less. */
  readonly gain: (from: TableChoice, to: TableChoice) => number;
  /** Told of every change that is made. */
  readonly taken: (from: TableChoice, to: TableChoice) => void;
}

/** Changes the single rank that gains most, again and again until none gains anything. */
function stepwise(
  layers: readonly LayerTables[],
  start: readonly TableChoice[],
  { step, gain, taken }: Steps,
): TableChoice[] {
  const choices = [...start];
  for (;;) {
    let best: { readonly layer: number; readonly choice: TableChoice; readonly gain: number } | undefined;
    for (const [layer, { tables }] of layers.entries()) {
      const current = choices[layer]!;
      const { errors, cost } = tables[current.table]!;
      for (const mode of [0, 1, 2] as const) {
        const rank = current.ranks[mode] + step;
        if (rank < 1 || rank > errors.sizes[mode]!) continue;
        const ranks = current.ranks.with(mode, rank) as unknown as Ranks;
        const choice = { ...choiceOf(errors, cost, ranks), table: current.table };
        const worth = gain(current, choice);
        if (worth > (best?.gain ?? 0)) best = { layer, choice, gain: worth };
      }
    }
    if (best === undefined) return choices;
    taken(choices[best.layer]!, best.choice);
    choices[best.layer] = best.choice;
  }
}
