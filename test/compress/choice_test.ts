/** Which modes and ranks a request leads to: rates, energies, ratios, budgets, `auto`, and what is refused. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { rankByEnergy, rankBySize, ranksTogether, truncationError } from "../../src/compress/laser_ranks.ts";
import type { LayerMatrix } from "../../src/compress/matrices.ts";
import { type CompressionRequest, inheritRequest, resolveOptions } from "../../src/compress/options.ts";
import type { CompressionPreview } from "../../src/compress/preview.ts";
import { extractWeights, findAttention, MATRICES, rewriteDense } from "../../src/attention/mod.ts";
import { TuckerdError } from "../../src/errors.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { seeded } from "../support/random_tucker.ts";
import { oracleExports } from "../support/oracle.ts";
import { testSeed } from "../support/seed.ts";

function matrixOf(m: number, n: number, layer = 0): LayerMatrix {
  return { layer, index: 0, matrix: "fc_in", shape: [m, n] };
}

Deno.test("a rate gives LASER's own ranks", () => {
  // int(min(m, n)·(10 − ρ)/10), worked out by hand; GPT-J's fc_in at LASER's best rate of 9.9 among them.
  const cases: [number, number, number, number][] = [
    [4096, 16384, 9.9, 40],
    [768, 3072, 7.5, 192],
    [48, 96, 6.5, 16],
    [48, 48, 0, 48],
    [3, 9, 9.9, 1],
  ];
  for (const [m, n, rate, rank] of cases) {
    assertEquals(rankBySize(matrixOf(m, n), { kind: "rate", rate }), rank, `${m}×${n} at ${rate}`);
  }
});

Deno.test("a ratio gives the largest rank that r(m + n) ≤ mn/ratio allows", () => {
  assertEquals(rankBySize(matrixOf(48, 96), { kind: "ratio", ratio: 3 }), 10); // 4608/3/144 = 10.67
  assertEquals(rankBySize(matrixOf(48, 48), { kind: "ratio", ratio: 24 }), 1);
  assertThrows(() => rankBySize(matrixOf(48, 48), { kind: "ratio", ratio: 25 }), TuckerdError, "48×48");
});

Deno.test("energies and errors of a spectrum 4, 2, 2, 1", () => {
  const values = [4, 2, 2, 1]; // squares 16, 4, 4, 1 of 25
  assertEquals([0.6, 0.64, 0.65, 0.8, 0.9, 1].map((energy) => rankByEnergy(values, energy)), [1, 1, 2, 2, 3, 4]);
  assertEquals([1, 2, 3, 4].map((rank) => truncationError(values, rank) ** 2).map((lost) => Math.round(lost * 25)), [
    9,
    5,
    1,
    0,
  ]);
  assertEquals(truncationError([0, 0], 1), 0);
});

Deno.test("one budget for several matrices goes where it helps most", () => {
  const steep = { matrix: matrixOf(4, 4, 0), values: [10, 1, 0.1, 0] };
  const flat = { matrix: matrixOf(4, 4, 1), values: [1, 1, 1, 1] };
  const ranks = (target: Parameters<typeof ranksTogether>[1]): number[] =>
    ranksTogether([steep, flat], target).map(({ rank }) => rank);
  // 32 numbers at ratio 0.8 leave 40: five ranks of 8. The flat matrix gains 1/4 a rank, the steep one 1/101.
  assertEquals(ranks({ kind: "ratio", ratio: 0.8 }), [1, 4]);
  assertEquals(ranks({ kind: "ratio", ratio: 1 }), [1, 3]);
  // Both at rank 1 keep 100/101.01 and 1/4, a mean of 0.62; each further rank of the flat one adds 1/8.
  assertEquals(ranks({ kind: "energy", energy: 0.62 }), [1, 1]);
  assertEquals(ranks({ kind: "energy", energy: 0.63 }), [1, 2]);
  assertEquals(ranks({ kind: "energy", energy: 0.999 }), [2, 4]);
  assertThrows(() => ranks({ kind: "ratio", ratio: 2.1 }), TuckerdError, "together");
  // A wide matrix's rank costs more: per number the narrow one's second rank is worth more, though it gains less.
  const wide = { matrix: matrixOf(4, 36, 2), values: [1, 0.9] };
  const narrow = { matrix: matrixOf(4, 4, 3), values: [1, 0.5] };
  assertEquals(ranksTogether([wide, narrow], { kind: "ratio", ratio: 160 / 88 }).map(({ rank }) => rank), [1, 2]);
});

Deno.test("options without a meaning in their mode are refused, by name", () => {
  const refused: [CompressionRequest, string][] = [
    [{ mode: "laser", ranks: [4, 4, 4] }, "r1,r2,r3"],
    [{ mode: "auto", ranks: [4, 4, 4] }, "r1,r2,r3"],
    [{ mode: "laser", energy: 0.9, laser: { rate: 5 } }, "not both"],
    [{ mode: "4d-tucker", laser: { rate: 5 } }, "laser"],
    [{ laser: { matrices: ["ffn"] } }, "laser"],
    [{ mode: "laser", matrices: ["query"] }, "matrices"],
    [{ mode: "4d-tucker-laser", laser: { matrices: ["query"] } }, "query"],
    [{ mode: "laser", laser: { rate: 10 } }, "below 10"],
  ];
  for (const [request, text] of refused) assertThrows(() => resolveOptions(request), TuckerdError, text);
});

Deno.test("a re-run inherits what it doesn't say, as far as it has a meaning in its mode", () => {
  const started: CompressionRequest = { mode: "laser", laser: { matrices: ["all"], rate: 8 }, layers: "1-2" };
  assertEquals(inheritRequest(started, {}), started);
  assertEquals(inheritRequest(started, { laser: { rate: 3 } }).laser, { matrices: ["all"], rate: 3 });
  assertEquals(inheritRequest(started, { energy: 0.9 }), {
    mode: "laser",
    laser: { matrices: ["all"] },
    layers: "1-2",
    energy: 0.9,
  });
  assertEquals(inheritRequest(started, { mode: "4d-tucker", ranks: [4, 4, 4] }), {
    mode: "4d-tucker",
    layers: "1-2",
    ranks: [4, 4, 4],
  });
  const tucker: CompressionRequest = { ranks: [8, 4, 2], balance: true };
  assertEquals(inheritRequest(tucker, { mode: "4d-tucker-laser", laser: { rate: 5 } }), {
    mode: "4d-tucker-laser",
    ranks: [8, 4, 2],
    balance: true,
    laser: { rate: 5 },
  });
  assertEquals(inheritRequest(tucker, { mode: "laser", laser: { rate: 5 } }), {
    mode: "laser",
    balance: true,
    laser: { rate: 5 },
  });
  for (const request of [inheritRequest(started, { energy: 0.9 }), inheritRequest(tucker, { mode: "auto" })]) {
    resolveOptions(request);
  }
});

const bert = oracleExports("bert")[0]!.path;

function squaredErrors({ layers }: CompressionPreview): number {
  return layers.reduce((sum, { relativeError }) => sum + relativeError ** 2, 0);
}

Deno.test("a global budget loses less than one for each layer, at no more parameters", async () => {
  await using opened = await openTestCompressor(bert);
  const { compressor } = opened;
  const preview = (request: CompressionRequest): Promise<CompressionPreview> =>
    compressor.preview(resolveOptions(request));
  const ratio = 3;
  const [layer, global] = [
    await preview({ compressionRatio: ratio }),
    await preview({ compressionRatio: ratio, budget: "global" }),
  ];
  assert(global.totals.compressionRatio >= ratio);
  assert(squaredErrors(global) < squaredErrors(layer), `${squaredErrors(global)} and ${squaredErrors(layer)}`);

  const energies = [await preview({ energy: 0.95 }), await preview({ energy: 0.95, budget: "global" })] as const;
  assert(squaredErrors(energies[1]) / energies[1].layers.length <= 0.05 + 1e-6);
  assert(energies[1].totals.compressedParameters < energies[0].totals.compressedParameters);

  // Attention's spectra here are steep and those of the feed-forward networks flat: all errors count alike.
  const mean = ({ layers }: CompressionPreview): { loss: number; parameters: number } => ({
    loss: layers.reduce(
      (sum, { relativeError, feedForward = [] }) =>
        sum + 4 * relativeError ** 2 + feedForward.reduce((inner, each) => inner + each.relativeError ** 2, 0),
      0,
    ),
    parameters: layers.reduce(
      (sum, { compressedParameters, feedForward = [] }) =>
        sum + compressedParameters + feedForward.reduce((inner, each) => inner + each.compressedParameters, 0),
      0,
    ),
  });
  const laser = { mode: "laser", compressionRatio: ratio, laser: { matrices: ["all"] } } as const;
  const [alone, together] = [mean(await preview(laser)), mean(await preview({ ...laser, budget: "global" }))];
  const budget = 2 * 27648 / ratio;
  assert(alone.parameters <= budget && together.parameters <= budget);
  assert(together.loss < alone.loss, `${together.loss} and ${alone.loss}`);
});

Deno.test("a global budget in the modes 3d-tucker and auto loses no more than one for each layer, within its parameters", async () => {
  await using opened = await openTestCompressor(bert);
  for (const mode of ["3d-tucker", "auto"] as const) {
    const preview = (budget: "layer" | "global"): Promise<CompressionPreview> =>
      opened.compressor.preview(resolveOptions({ mode, compressionRatio: 3, budget }));
    const [layer, global] = [await preview("layer"), await preview("global")];
    assert(global.totals.compressedParameters <= global.totals.attentionParameters / 3, mode);
    assert(squaredErrors(global) < squaredErrors(layer), `${mode}: ${squaredErrors(global)}, ${squaredErrors(layer)}`);
    const { report } = await opened.compressor.compress(
      resolveOptions({ mode, compressionRatio: 3, budget: "global" }),
    );
    assertEquals(report.totals.compressedParameters, global.totals.compressedParameters, mode);
  }
});

Deno.test("auto takes for each layer the mode with the smallest error at that ratio", async () => {
  // In layer 1 each matrix has a low rank of its own, in subspaces that have nothing in common: only separate SVDs find it.
  const seed = testSeed();
  const random = seeded(seed);
  const model = await loadModel(bert);
  const { weights } = extractWeights(model, findAttention(model).blocks[1]!);
  const planted = Object.fromEntries(MATRICES.map((name) => [name, lowRank(48, 5, random)]));
  const folder = await Deno.makeTempDir();
  await saveModel(rewriteDense(model, new Map([[1, { ...weights, ...planted }]])), `${folder}/model.onnx`);
  await using opened = await openTestCompressor(`${folder}/model.onnx`);
  for (const target of [{ compressionRatio: 4.8 }, { energy: 0.9 }]) {
    const of = async (mode: "auto" | "4d-tucker" | "3d-tucker" | "laser") =>
      (await opened.compressor.preview(resolveOptions({ mode, ...target }))).layers;
    const [auto, ...modes] = [await of("auto"), await of("4d-tucker"), await of("3d-tucker"), await of("laser")];
    if ("compressionRatio" in target) assertEquals(auto![1]!.mode, "laser", `seed ${seed}`);
    for (const [layer, { relativeError, compressedParameters }] of auto!.entries()) {
      for (const other of modes.map((each) => each[layer]!)) {
        // Mode laser alone keeps the energy of each matrix, where auto keeps that of the layer.
        if ("energy" in target && other.mode === "laser") continue;
        const [own, best] = "energy" in target
          ? [compressedParameters, other.compressedParameters]
          : [relativeError, other.relativeError];
        assert(own <= best + 1e-3, `seed ${seed}, layer ${layer}: ${own}, but ${other.mode} has ${best}`);
      }
    }
  }
  const { report } = await opened.compressor.compress(resolveOptions({ mode: "auto", compressionRatio: 4.8 }));
  assertEquals(report.layers.map(({ mode }) => mode), ["4d-tucker", "laser", "4d-tucker"]);
  assert(report.layers[1]!.relativeError < 1e-5, `seed ${seed}: rank 5 leaves ${report.layers[1]!.relativeError}`);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("auto cuts a common rank to the matrices of a single key head, which have fewer columns", async () => {
  // d = 32, four query heads of 8 and one key head. Rank 11 of 32×32 matrices is what a ratio of 1.4 leaves.
  const seed = testSeed();
  const random = seeded(seed);
  const model = await loadModel(oracleExports("gpt-bigcode")[0]!.path);
  const { weights } = extractWeights(model, findAttention(model).blocks[0]!);
  const planted = { ...weights, query: lowRank(32, 11, random), output: lowRank(32, 11, random) };
  const folder = await Deno.makeTempDir();
  await saveModel(rewriteDense(model, new Map([[0, planted]])), `${folder}/model.onnx`);
  await using opened = await openTestCompressor(`${folder}/model.onnx`);
  const { report } = await opened.compressor.compress(
    resolveOptions({ mode: "auto", compressionRatio: 1.4, layers: "0" }),
  );
  const { mode, matrixRanks, relativeError } = report.layers[0]!;
  assertEquals([mode, matrixRanks], ["laser", { q: 11, k: 8, v: 8, o: 11 }], `seed ${seed}`);
  assert(relativeError < 1e-5, `seed ${seed}: ${relativeError}`);
  await Deno.remove(folder, { recursive: true });
});

/** A random size×size matrix of a rank. */
function lowRank(size: number, rank: number, random: () => number): Float32Array {
  const [left, right] = [0, 1].map(() => Float64Array.from({ length: size * rank }, () => random() - 0.5));
  return Float32Array.from({ length: size * size }, (_, i) => {
    const [row, column] = [Math.floor(i / size), i % size];
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += left![row * rank + k]! * right![column * rank + k]!;
    return sum;
  });
}

Deno.test("3d-tucker of two matrices leaves the others exactly as they are, and its ratio is theirs", async () => {
  await using opened = await openTestCompressor(bert);
  const options = resolveOptions({
    mode: "3d-tucker",
    matrices: ["query", "output"],
    compressionRatio: 2,
    layers: "1",
  });
  const { layers } = (await opened.compressor.compress(options)).report;
  const { mode, matrixErrors: { q, k, v, o }, parameters, compressedParameters, relativeError } = layers[1]!;
  assertEquals([mode, layers[0]!.mode, k, v], ["3d-tucker", "none", 0, 0]);
  assert(q > 0 && o > 0);
  const half = parameters / 2;
  const two = compressedParameters - half;
  assert(two <= half / 2 && two > half / 2 * 0.9, `${two} numbers for two matrices of ${half}`);
  // HOOI may only do better than what the preview's tables say.
  const preview = (await opened.compressor.preview(options)).layers[1]!;
  assertEquals([preview.mode, preview.compressedParameters], ["3d-tucker", compressedParameters]);
  assert(relativeError <= preview.relativeError * Math.SQRT1_2 * 1.2, `${relativeError}, ${preview.relativeError}`);
});

Deno.test("matrices that no layer has are refused by name", async () => {
  await using opened = await openTestCompressor(bert);
  const { compressor } = opened;
  assertThrows(
    () => compressor.plan(resolveOptions({ mode: "laser", laser: { matrices: ["fc_up"], rate: 5 } })),
    TuckerdError,
    "fc_up",
  );
  assertThrows(
    () =>
      compressor.plan(resolveOptions({ mode: "laser", laser: { rate: 5 }, overrides: { "0": { ranks: [2, 2, 2] } } })),
    TuckerdError,
    "layer 0",
  );
  await assertRejects(
    () => compressor.preview(resolveOptions({ mode: "laser", compressionRatio: 100 })),
    TuckerdError,
    "48×48",
  );
});

Deno.test("a layer whose factors would be larger than its weights keeps its weights", async () => {
  const { path } = oracleExports("bert").find(({ file }) => file === "onnx/model.onnx")!;
  await using opened = await openTestCompressor(path);
  for (const mode of ["4d-tucker", "auto"] as const) {
    const { report } = await opened.compressor.compress(resolveOptions({ energy: 0.99999, mode }));
    assertEquals(report.layers.map((layer) => [layer.mode, layer.relativeError]), Array(3).fill(["none", 0]), mode);
    assertEquals(report.totals.compressedParameters, report.totals.attentionParameters);
  }
});
