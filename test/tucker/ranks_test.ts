import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert/mod.js";
import { type AttentionWeights, MATRICES } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import {
  chooseMode,
  compressedParameters,
  compressionRatio,
  createCpuOps,
  decomposeLayer,
  ErrorTable,
  hosvd,
  laserRank,
  layerParameters,
  type LayerShape,
  lowRankSaves,
  modeTables,
  parseLayers,
  type RankChoice,
  type RankedLayer,
  ranksForEnergy,
  ranksForGlobalRatio,
  ranksForRatio,
} from "../../src/tucker/mod.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { options, randomWeights, WHERE } from "./layers.ts";
import { randomArray, uniform } from "./random.ts";

Deno.test("compression ratios of the paper's GPT-J layer", () => {
  const gptj: LayerShape = [4096, 256, 4, 16];
  for (
    const [ranks, ratio] of [
      [[64, 4, 2], "247.30"],
      [[304, 19, 2], "46.77"],
      [[208, 13, 1], "74.68"],
      [[800, 50, 2], "14.69"],
    ] as [Ranks, string][]
  ) assertEquals(compressionRatio(gptj, ranks).toFixed(2), ratio, `${ranks}`);
  assertEquals(layerParameters(gptj), 4 * 4096 * 4096);
  assertEquals(compressedParameters([10, 5, 4, 2], [3, 2, 1]), 3 * 2 * 1 * 2 + 30 + 10 + 4);
});

Deno.test("parseLayers reads all, numbers and ranges", () => {
  assertEquals(parseLayers("all", 3), [0, 1, 2]);
  assertEquals(parseLayers("0,2-5", 6), [0, 2, 3, 4, 5]);
  assertEquals(parseLayers(" 4 , 1 - 2,1", 6), [1, 2, 4]);
  for (
    const [text, part] of [["", '""'], ["1,", '""'], ["3-1", "3-1"], ["a", "a"], ["-1", "-1"], ["1.5", "1.5"], [
      "6",
      "6",
    ], ["0-6", "6"]] as const
  ) {
    const error = assertThrows(() => parseLayers(text, 6), TuckerdError);
    assertEquals(error.kind, "invalid");
    assert(error.message.includes(part), error.message);
  }
});

Deno.test("LASER's rank follows its rate", () => {
  assertEquals(laserRank([100, 50], 9.5), 2);
  assertEquals(laserRank([768, 3072], 9), 76);
  assertEquals(laserRank([4, 4], 9.9), 1);
  assertEquals(laserRank([7, 9], 0), 7);
  assertThrows(() => laserRank([7, 9], 10), TuckerdError);
  assertThrows(() => laserRank([7, 9], NaN), TuckerdError);
  assert(lowRankSaves([100, 50], 33) && !lowRankSaves([100, 50], 34));
});

/** A table whose errors fall like powers, at a speed of the layer's own. */
function layer(seed: number, decay: number): RankedLayer {
  const shape: LayerShape = [24, 8, 4, 3];
  const random = uniform(seed);
  const energies = Float64Array.from({ length: 24 * 8 * 4 }, (_, i) => {
    const [a, b, c] = [Math.floor(i / 32) + 1, Math.floor(i / 4) % 8 + 1, i % 4 + 1];
    return (1.5 + random()) * (a * b * c) ** -decay;
  });
  return { shape, errors: ErrorTable.fromEnergies([24, 8, 4], energies) };
}

/** Every choice of ranks. */
function* allRanks({ shape: [d, h] }: RankedLayer): Generator<Ranks> {
  for (let r1 = 1; r1 <= d; r1++) for (let r2 = 1; r2 <= h; r2++) for (let r3 = 1; r3 <= 4; r3++) yield [r1, r2, r3];
}

Deno.test("ranksForEnergy finds the fewest parameters, as an exhaustive search does", () => {
  for (const energy of [0.1, 0.5, 0.9, 0.99, 1]) {
    const given = layer(3, 1);
    const choice = ranksForEnergy(given, energy);
    assert(given.errors.energy(choice.ranks) >= energy - 1e-12);
    assertEquals(choice.parameters, compressedParameters(given.shape, choice.ranks));
    for (const ranks of allRanks(given)) {
      if (given.errors.energy(ranks) < energy) continue;
      assert(compressedParameters(given.shape, ranks) >= choice.parameters, `${ranks} is cheaper at ${energy}`);
    }
  }
  assertThrows(() => ranksForEnergy(layer(3, 1), 2), TuckerdError, "2");
  assertThrows(() => ranksForEnergy(layer(3, 1), 0), TuckerdError);
});

Deno.test("ranksForRatio finds the lowest error, as an exhaustive search does", () => {
  const given = layer(4, 0.7);
  for (const ratio of [0.8, 2, 5, 20]) {
    const choice = ranksForRatio(given, ratio);
    assert(compressionRatio(given.shape, choice.ranks) >= ratio);
    for (const ranks of allRanks(given)) {
      if (compressionRatio(given.shape, ranks) < ratio) continue;
      assert(given.errors.energy(ranks) <= choice.energy, `${ranks} is better at ${ratio}`);
    }
  }
  assertThrows(() => ranksForRatio(given, 1000), TuckerdError, "1000");
  assertThrows(() => ranksForRatio(given, NaN), TuckerdError);
});

Deno.test("a global budget is kept and beats uniform ranks and a ratio per layer", () => {
  const layers = [layer(1, 0.3), layer(2, 0.8), layer(3, 1.5), layer(4, 2.5)];
  const loss = (choices: readonly RankChoice[]): number => choices.reduce((sum, { energy }) => sum + 1 - energy, 0);
  for (const ratio of [1.2, 3, 8, 25]) {
    const global = ranksForGlobalRatio(layers, ratio);
    const parameters = global.reduce((sum, choice) => sum + choice.parameters, 0);
    assert(4 * layerParameters(layers[0]!.shape) / parameters >= ratio, `${ratio}: ${parameters} parameters`);
    for (const [i, { ranks, energy }] of global.entries()) {
      assertAlmostEquals(layers[i]!.errors.energy(ranks), energy, 0);
    }
    const perLayer = layers.map((given) => ranksForRatio(given, ratio));
    assert(loss(global) < loss(perLayer), `${ratio}: ${loss(global)} against ${loss(perLayer)} per layer`);
    let uniformLoss = Infinity;
    for (const ranks of allRanks(layers[0]!)) {
      if (compressionRatio(layers[0]!.shape, ranks) < ratio) continue;
      uniformLoss = Math.min(uniformLoss, layers.reduce((sum, { errors }) => sum + 1 - errors.energy(ranks), 0));
    }
    assert(loss(global) < uniformLoss, `${ratio}: ${loss(global)} against ${uniformLoss} uniform`);
  }
  assertThrows(() => ranksForGlobalRatio(layers, 1000), TuckerdError);
});

Deno.test("tables of real decompositions: singular values, and every mode's table is its own error", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights({ hiddenSize: 12, heads: 3, headSize: 4 }, 21);
  const place = { layout: "heads", balance: false, where: WHERE } as const;
  const { singularValues } = await hosvd(weights, place, ops);
  const squares = (values: Float64Array): number => values.reduce((sum, value) => sum + value ** 2, 0);
  const norm2 = [weights.query, weights.key, weights.value, weights.output]
    .reduce((sum, matrix) => sum + matrix.reduce((part, value) => part + value ** 2, 0), 0);
  for (const values of Object.values(singularValues) as Float64Array[]) {
    assertAlmostEquals(squares(values), norm2, 1e-9 * norm2);
    assert(values.every((value, i) => i === 0 || value <= values[i - 1]!));
  }
  const tables = await modeTables(weights, place, ops);
  const low = await decomposeLayer(weights, options({ mode: "laser", rank: 5 }), ops);
  assertAlmostEquals(tables.lowRank.relativeError([5, 1, 1]), low.relativeError, 1e-6);
  const alone = await decomposeLayer(weights, options({ mode: "3d-tucker", ranks: [6, 2, 4], sweeps: 0 }), ops);
  const table = tables.tucker3.relativeError([6, 2, 1]);
  assert(Math.abs(table - alone.relativeError) < 0.05, `${table}, ${alone.relativeError}`);
});

/** Matrices with singular vectors of their own: little to share, so the best mode depends on the ratio. */
function ownSubspaces(): AttentionWeights {
  const weights = randomWeights({ hiddenSize: 24, heads: 3, headSize: 8 }, 31);
  for (const [s, name] of MATRICES.entries()) {
    const [left, right] = [randomArray(24 * 6, 40 + s), randomArray(6 * 24, 50 + s)];
    weights[name].forEach((noise, index) => {
      let sum = noise / 20;
      for (let k = 0; k < 6; k++) sum += left[Math.floor(index / 24) * 6 + k]! * right[k * 24 + index % 24]! / (k + 1);
      weights[name][index] = sum;
    });
  }
  return weights;
}

Deno.test("auto takes at a ratio the mode with the lowest error, at an energy the smallest", async () => {
  using ops = await createCpuOps();
  const place = { layout: "heads", balance: false, where: WHERE } as const;
  const tables = await modeTables(ownSubspaces(), place, ops);
  const full = layerParameters(tables.shape);
  const modes = new Set<string>();
  for (const ratio of [1, 1.5, 2, 4, 8, 16, 32]) {
    const choice = chooseMode(tables, { kind: "ratio", ratio });
    assert(choice.parameters <= full / ratio, `${choice.mode} takes ${choice.parameters} at ${ratio}`);
    const tucker = ranksForRatio({ errors: tables.tucker4, shape: tables.shape }, ratio);
    assert(choice.energy >= tucker.energy);
    modes.add(choice.mode);
  }
  assert(modes.size > 1, `one mode wins at every ratio: ${[...modes]}`);
  const choice = chooseMode(tables, { kind: "energy", energy: 0.9 });
  assert(choice.energy >= 0.9);
  assert(choice.parameters <= ranksForEnergy({ errors: tables.tucker4, shape: tables.shape }, 0.9).parameters);
  assertThrows(() => chooseMode(tables, { kind: "ratio", ratio: 1e6 }), TuckerdError);
});
