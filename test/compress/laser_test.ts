/**
 * Mode `laser` the whole way, against Hugging Face's own code with weights truncated by NumPy in float64 (test/testdata/laser): outputs
 * of the factored file, of the dense file and of the graph that serves; ranks, errors and singular values.
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import type { AttentionBlock } from "../../src/attention/types.ts";
import type { CompressionReport } from "../../src/compress/artifact.ts";
import { resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import type { LaserName } from "../../src/config.ts";
import { decodeModel } from "../../src/onnx/codec.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { caseInputs, type Nested, nestedNumbers, oracleExports, oracleReference } from "../support/oracle.ts";
import { TestSession } from "../support/session.ts";

interface Truncated {
  readonly layer: number;
  readonly matrix: string;
  readonly shape: readonly [number, number];
  readonly rank: number;
  readonly relativeError: number;
  readonly singularValues: readonly number[];
}

interface Intervention {
  readonly name: string;
  readonly rate: number;
  readonly layers: string;
  readonly matrices: readonly LaserName[];
  readonly truncated: readonly Truncated[];
  readonly outputs: readonly Nested[];
  readonly outputNames: readonly string[];
}

interface Golden {
  readonly models: Readonly<Record<string, { readonly case: string; readonly interventions: readonly Intervention[] }>>;
}

const golden = JSON.parse(
  await Deno.readTextFile(new URL("../testdata/laser/laser.json", import.meta.url)),
) as Golden;
const attention: Readonly<Record<string, "q" | "k" | "v" | "o">> = { query: "q", key: "k", value: "v", output: "o" };

for (const [model, { case: name, interventions }] of Object.entries(golden.models)) {
  const { path, file } = oracleExports(model).find(({ file }) => /^onnx(-past)?\/model.onnx$/.test(file))!;
  const inputs = caseInputs(oracleReference(model), name);
  Deno.test(`${model}/${file}: truncated matrices give what Hugging Face's code gives with them`, async (test) => {
    await using opened = await openTestCompressor(path);
    const { compressor } = opened;
    const out = await Deno.makeTempDir();
    for (const { name, rate, layers, matrices, truncated, outputs, outputNames } of interventions) {
      const options = resolveOptions({ mode: "laser", layers, laser: { matrices, rate } });
      const compare = async (session: TestSession, feeds: Parameters<TestSession["run"]>[1] = {}): Promise<void> => {
        const actual = await session.run(inputs, feeds);
        for (const [i, output] of outputNames.entries()) {
          const expected = nestedNumbers(outputs[i]!);
          const difference = largestDifference(actual[output]!.data, expected);
          assert(difference <= 2e-5 * largestValue(expected), `${output}: off by ${difference}`);
        }
      };
      for (const execution of ["factored", "dense"] as const) {
        await test.step(`${name}, ${execution} file`, async () => {
          const folder = `${out}/${name}-${execution}`;
          const report = await writeModelFolder(compressor, options, { out: folder, execution });
          checkReport(report, truncated);
          if (matrices[0] === "all") checkLayerErrors(report, truncated, compressor.blocks);
          await using session = await TestSession.load({ path: `${folder}/onnx/model.onnx` });
          await compare(session);
        });
      }
      await test.step(`${name}, serving`, async () => {
        const { graph, feeds } = await compressor.compress(options);
        if (!("bytes" in graph)) throw new TypeError("the graph has external data");
        await using session = await TestSession.load({ proto: decodeModel(graph.bytes), path, folder: out });
        await compare(session, feeds);
        // Two matrices where that takes fewer numbers, else the one that they make.
        const numbers = truncated.reduce((sum, { shape: [m, n], rank }) => sum + Math.min(rank * (m + n), m * n), 0);
        assertEquals(Object.values(feeds).reduce((sum, { data }) => sum + data.length, 0), numbers);
      });
    }
    await Deno.remove(out, { recursive: true });
  });

  Deno.test(`${model}: energies choose the ranks that NumPy's singular values ask for, and previews tell their errors`, async () => {
    await using opened = await openTestCompressor(path);
    const { truncated } = interventions.find(({ matrices }) => matrices[0] === "all")!;
    const energy = 0.8;
    const options = resolveOptions({ mode: "laser", energy, laser: { matrices: ["all"] } });
    const { layers } = await opened.compressor.preview(options);
    for (const { layer, matrix, singularValues } of truncated) {
      const squares = singularValues.map((value) => value * value);
      const total = squares.reduce((sum, value) => sum + value, 0);
      let [rank, kept] = [0, 0];
      while (kept < energy * total) kept += squares[rank++]!;
      const preview = layers[layer]!;
      const letter = attention[matrix];
      if (letter !== undefined) {
        assertEquals(preview.matrixRanks?.[letter], rank, `layer ${layer} ${matrix}`);
        continue;
      }
      const found = preview.feedForward!.find((each) => each.name === matrix)!;
      assertEquals(found.rank, rank, `layer ${layer} ${matrix}`);
      assertNear([found.relativeError], [Math.sqrt(1 - kept / total)], { atol: 1e-5, rtol: 0, what: matrix });
    }
  });
}

/** Ranks, errors, sizes and the way of running of every truncated matrix, and nothing else. */
function checkReport({ layers }: CompressionReport, truncated: readonly Truncated[]): void {
  const reported = layers.flatMap(({ layer, matrixRanks, matrixErrors, feedForward = [] }) => [
    ...Object.entries(attention).flatMap(([matrix, letter]) => {
      const rank = matrixRanks?.[letter] ?? undefined;
      return rank === undefined ? [] : [{ layer, matrix, rank, relativeError: matrixErrors[letter] }];
    }),
    ...feedForward.map(({ name, rank, relativeError }) => ({ layer, matrix: name, rank, relativeError })),
  ]);
  const key = (each: { readonly layer: number; readonly matrix: string }) => `${each.layer}.${each.matrix}`;
  assertEquals(reported.map(key).sort(), truncated.map(key).sort());
  for (const { rank, relativeError, ...place } of truncated) {
    const own = reported.find((each) => key(each) === key(place))!;
    assertEquals(own.rank, rank, key(place));
    assertNear([own.relativeError], [relativeError], { atol: 1e-5, rtol: 0, what: key(place) });
  }
}

/** Errors of the layers' tensors, in which heads of grouped keys and values are repeated. */
function checkLayerErrors(
  { layers }: CompressionReport,
  truncated: readonly Truncated[],
  blocks: readonly AttentionBlock[],
): void {
  for (const { layer, relativeError } of layers) {
    const { heads, keyValueHeads } = blocks[layer]!;
    let [lost, total] = [0, 0];
    for (const { matrix, singularValues, rank } of truncated.filter((each) => each.layer === layer)) {
      if (!(matrix in attention)) continue;
      const repeats = matrix === "key" || matrix === "value" ? heads / keyValueHeads : 1;
      const squares = singularValues.map((value) => repeats * value * value);
      total += squares.reduce((sum, value) => sum + value, 0);
      lost += squares.slice(rank).reduce((sum, value) => sum + value, 0);
    }
    assertNear([relativeError], [Math.sqrt(lost / total)], { atol: 1e-5, rtol: 0, what: `layer ${layer}` });
  }
}
