/** One budget for several layers and modes, against every combination of ranks. */
import { assert, assertEquals, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { ErrorTable } from "../../src/tucker/error_table.ts";
import {
  type LayerTables,
  type RankedTable,
  shareEnergy,
  shareRatio,
  type TableChoice,
} from "../../src/tucker/global_budget.ts";
import { layerParameters } from "../../src/tucker/ranks.ts";
import { bestWithin } from "../../src/tucker/rank_choice.ts";
import { testSeed } from "../support/seed.ts";
import { uniform } from "./random.ts";

/** A table of random energies that fall at a random speed, with random prices. */
function randomTable(sizes: readonly [number, number, number], random: () => number): RankedTable {
  const decay = 1 + random();
  const [d, h, s] = sizes;
  const energies = Float64Array.from({ length: d * h * s }, (_, i) => {
    const [a, b, c] = [Math.floor(i / (h * s)) + 1, Math.floor(i / s) % h + 1, i % s + 1];
    return (1.1 + random()) * (a * b * c) ** -decay;
  });
  const [x, y] = [3 + Math.floor(2 * (1 + random())), 1 + Math.floor(1 + random())];
  const cost = { each: (r2: number, r3: number) => x + r2 * r3, base: (r2: number, r3: number) => y * r2 + r3 };
  return { errors: ErrorTable.fromEnergies(sizes, energies), cost };
}

/** Every choice of table and ranks of a layer. */
function everyChoice({ tables }: LayerTables): TableChoice[] {
  return tables.flatMap(({ errors, cost }, table) => {
    const choices: TableChoice[] = [];
    const [d, h, s] = errors.sizes;
    for (let r1 = 1; r1 <= d; r1++) {
      for (let r2 = 1; r2 <= h; r2++) {
        for (let r3 = 1; r3 <= s; r3++) {
          const parameters = r1 * cost.each(r2, r3) + cost.base(r2, r3);
          choices.push({ ranks: [r1, r2, r3], parameters, energy: errors.energy([r1, r2, r3]), table });
        }
      }
    }
    return choices;
  });
}

const sum = (choices: readonly TableChoice[], of: "parameters" | "energy"): number =>
  choices.reduce((total, choice) => total + choice[of], 0);

/** All combinations of the layers' choices. */
function* combinations(layers: readonly LayerTables[]): Generator<TableChoice[]> {
  const [first, ...rest] = layers.map(everyChoice);
  if (first === undefined) return;
  let partial = first.map((choice) => [choice]);
  for (const choices of rest) partial = partial.flatMap((some) => choices.map((choice) => [...some, choice]));
  yield* partial;
}

Deno.test("a shared ratio and energy against every combination: kept exactly, close to the optimum, never worse than alone or uniform", () => {
  const seed = testSeed();
  const random = uniform(seed);
  let [missed, possible, spent, cheapest] = [0, 0, 0, 0];
  for (let round = 0; round < 25; round++) {
    const layers = Array.from({ length: 2 }, (): LayerTables => ({
      shape: [4, 3, 4, 2],
      tables: [randomTable([4, 3, 2], random), randomTable([4, 3, 1], random), randomTable([6, 1, 1], random)],
    }));
    const all = [...combinations(layers)];
    const whole = 2 * layerParameters([4, 3, 4, 2]);
    const ratio = 2 + 2 * (1 + random());
    const budget = whole / ratio;
    const within = all.filter((choices) => sum(choices, "parameters") <= budget);
    const what = `seed ${seed}, round ${round}, ratio ${ratio}`;
    if (within.length === 0) {
      assertThrows(() => shareRatio(layers, ratio), TuckerdError, "ratio", what);
      continue;
    }
    const shared = shareRatio(layers, ratio);
    assert(sum(shared, "parameters") <= budget, what);
    for (const [i, { table, ranks, parameters, energy }] of shared.entries()) {
      const { errors, cost } = layers[i]!.tables[table]!;
      assertEquals([parameters, energy], [
        ranks[0] * cost.each(ranks[1], ranks[2]) + cost.base(ranks[1], ranks[2]),
        errors.energy(ranks),
      ]);
    }
    const best = Math.max(...within.map((choices) => sum(choices, "energy")));
    const same = within.filter(([a, b]) => a!.table === b!.table && `${a!.ranks}` === `${b!.ranks}`);
    for (const choices of same) assert(sum(choices, "energy") <= sum(shared, "energy") + 1e-12, `${what}: uniform`);
    const alone = layers.map(({ tables }) =>
      Math.max(...tables.map(({ errors, cost }) => bestWithin(errors, cost, budget / 2)?.energy ?? -Infinity))
    );
    assert(alone[0]! + alone[1]! <= sum(shared, "energy") + 1e-12, `${what}: alone`);
    missed += best - sum(shared, "energy");
    possible += 2 - best;

    const wanted = 0.75 + 0.2 * random();
    const keeping = shareEnergy(layers, wanted);
    assert(sum(keeping, "energy") >= 2 * wanted - 1e-9, what);
    spent += sum(keeping, "parameters");
    cheapest += Math.min(
      ...all.filter((choices) => sum(choices, "energy") >= 2 * wanted).map((choices) => sum(choices, "parameters")),
    );
  }
  assert(possible > 0 && missed <= 0.1 * possible, `seed ${seed}: ${missed} of ${possible} lost`);
  assert(spent <= 1.12 * cheapest, `seed ${seed}: ${spent} parameters, where ${cheapest} do`);
});
