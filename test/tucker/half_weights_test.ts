/** Layers whose 16-bit weights go to the GPU as they are stored: the same factors as by way of float32, and errors that name the place. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert/mod.js";
import { type AttentionWeights, type HalfMatrix, MATRICES, type MatrixName } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import { float16ToFloat32, float32ToFloat16 } from "../../src/onnx/float16.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { decomposeLayer, hosvd } from "../../src/tucker/mod.ts";
import type { LayerFactors, Tucker3Factors } from "../../src/tucker/types.ts";
import { skipGpu } from "../gpu/adapter.ts";
import { options, randomWeights, WHERE } from "./layers.ts";

const SIZES = { hiddenSize: 64, heads: 4, headSize: 16 };

function gpuTest(name: string, body: () => Promise<void>): void {
  Deno.test({ name: `16-bit layers: ${name}`, ignore: skipGpu }, body);
}

interface Layer {
  /** With `halves`, whose numbers are read by nobody else. */
  readonly stored: AttentionWeights;
  /** The same in float32. */
  readonly numbers: AttentionWeights;
  /** Matrices that were read as float32 numbers from `stored`. */
  readonly read: Set<MatrixName>;
}

/** A layer of float16 numbers, stored matrix by matrix. */
function layerOf(seed: number, change: (name: MatrixName, patterns: Uint16Array) => void = () => {}): Layer {
  const random = randomWeights(SIZES, seed);
  const read = new Set<MatrixName>();
  const numbers: Record<string, Float32Array> = {}, halves: Record<string, HalfMatrix> = {};
  const stored = { ...SIZES, halves: (name: MatrixName) => halves[name] };
  for (const name of MATRICES) {
    const patterns = float32ToFloat16(random[name].map((value) => 0.03 * value));
    change(name, patterns);
    numbers[name] = float16ToFloat32(patterns);
    const { hiddenSize, heads, headSize } = SIZES;
    const [rows, columns] = name === "output" ? [heads * headSize, hiddenSize] : [hiddenSize, heads * headSize];
    // stored backwards: heads stand for columns of query, key and value, and for rows of the output
    const indexed = name === "output" ? "rows" : "columns";
    const backwards = patterns.map((_, at) => {
      const [i, j] = [Math.floor(at / columns), at % columns];
      return indexed === "rows" ? patterns[(rows - 1 - i) * columns + j]! : patterns[i * columns + columns - 1 - j]!;
    });
    const count = indexed === "rows" ? rows : columns;
    halves[name] = {
      source: { format: "float16", count: patterns.length, pieces: () => [new Uint8Array(backwards.buffer)] },
      rows,
      columns,
      index: Int32Array.from({ length: count }, (_, i) => count - 1 - i),
      indexed,
      rowStride: columns,
      columnStride: 1,
    };
    Object.defineProperty(stored, name, {
      get: () => {
        read.add(name);
        return numbers[name];
      },
    });
  }
  return { stored: stored as unknown as AttentionWeights, numbers: { ...SIZES, ...numbers } as AttentionWeights, read };
}

type Parts = Readonly<Record<string, Pick<Tucker3Factors, "u1" | "u2" | "core">>>;

function partsOf(factors: LayerFactors): Parts {
  if (factors.kind === "low-rank") throw new TypeError("a Tucker decomposition was expected");
  return factors.kind === "tucker4" ? { all: factors.factors } : factors.matrices;
}

gpuTest("factors and errors are those of the same weights in float32, for half the bytes", async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, float16From: 1 });
  for (
    const given of [
      { ranks: [16, 4, 2], sweeps: 3 },
      { ranks: [64, 5, 4], sweeps: 3, layout: "reference" },
      { ranks: [16, 4, 2], sweeps: 3, balance: true },
      { mode: "3d-tucker", ranks: [16, 4, 2], sweeps: 2 },
      { mode: "3d-tucker", ranks: [16, 4, 2], sweeps: 2, matrices: ["value", "output"] },
    ] as const
  ) {
    const { stored, numbers } = layerOf(21);
    const before = ops.uploadedBytes!;
    const ours = await decomposeLayer(stored, options(given), ops);
    const crossed = ops.uploadedBytes! - before;
    const how = ops.adapter;
    const theirs = await decomposeLayer(numbers, options(given), ops);
    const more = ops.uploadedBytes! - before - crossed - crossed;
    assertEquals(ops.adapter, how);
    assertEquals(how.includes("float16"), !("balance" in given), how);
    // The norms' last digits, of float64, are the only difference.
    assertEquals(ours.factors.kind, theirs.factors.kind);
    const [mine, other] = [partsOf(ours.factors), partsOf(theirs.factors)];
    assertEquals(Object.keys(mine), Object.keys(other));
    for (const [name, { u1, u2, core }] of Object.entries(mine)) {
      const what = `${name} of ${JSON.stringify(given)}`;
      assertEquals([u1, u2], [other[name]!.u1, other[name]!.u2], what);
      core.forEach((value, i) => assertAlmostEquals(value, other[name]!.core[i]!, Math.abs(value) * 2 ** -22, what));
    }
    assertAlmostEquals(ours.relativeError, theirs.relativeError, 1e-12);
    // half the bytes of four matrices, but for where the numbers are; a subset of them is uploaded whole
    const count = 4 * 64 * 64;
    if (!("matrices" in given)) assertEquals(more, 2 * count - 4 * 4 * 64, JSON.stringify(given));
  }
});

gpuTest("large layers' weights aren't widened on the host", async () => {
  // more numbers than are measured exactly: errors come with the projections
  using ops = await createGpuOps({ allowFallbackAdapter: true });
  const sizes = { hiddenSize: 1024, heads: 16, headSize: 64 };
  const patterns = float32ToFloat16(randomWeights({ hiddenSize: 1024, heads: 4, headSize: 64 }, 3).query);
  const all = new Uint16Array(4 * patterns.length);
  for (let i = 0; i < 4; i++) all.set(patterns.map((pattern) => pattern ^ i), i * patterns.length);
  const matrix: HalfMatrix = {
    source: { format: "float16", count: all.length, pieces: () => [new Uint8Array(all.buffer)] },
    rows: 1024,
    columns: 1024,
    index: Int32Array.from({ length: 1024 }, (_, i) => i),
    indexed: "rows",
    rowStride: 1,
    columnStride: 1024,
  };
  const unread = (): never => {
    throw new Error("a matrix was read");
  };
  const weights = { ...sizes, halves: () => matrix } as unknown as AttentionWeights;
  for (const name of MATRICES) Object.defineProperty(weights, name, { get: unread });
  let uploads = 0;
  const { relativeError } = await decomposeLayer(
    weights,
    options({ ranks: [32, 4, 2], sweeps: 1, onUploaded: () => uploads++ }),
    ops,
  );
  assertEquals(uploads, 1);
  assert(ops.adapter.includes("float16"));
  assert(relativeError > 0.05 && relativeError < 1, `${relativeError}`);
});

gpuTest("the full HOSVD takes them too", async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, float16From: 1 });
  const { stored, numbers, read } = layerOf(22);
  const given = { layout: "heads", balance: false, where: WHERE } as const;
  const [ours, theirs] = [await hosvd(stored, given, ops), await hosvd(numbers, given, ops)];
  assertEquals([...read], []);
  assertEquals(ours.factors.u1, theirs.factors.u1);
  ours.singularValues.hidden.forEach((value, i) => {
    assertAlmostEquals(value, theirs.singularValues.hidden[i]!, 1e-12);
  });
});

gpuTest("NaN and infinities are refused by layer, matrix and place", async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, float16From: 1 });
  for (
    const [pattern, text] of [[0x7e00, "NaN"], [0x7c00, "Infinity"], [0xfc00, "-Infinity"], [0x7c01, "NaN"]] as const
  ) {
    for (const name of MATRICES) {
      const { stored } = layerOf(23, (matrix, patterns) => {
        if (matrix === name) patterns[4095] = pattern;
      });
      const decompose = () => decomposeLayer(stored, options({ ranks: [16, 4, 2] }), ops);
      const error = await assertRejects(decompose, TuckerdError);
      const expected = `layer 3 (test.layer): the ${name} weights hold ${text} at position 4095`;
      assert(error.message.startsWith(expected), error.message);
      assertEquals(error.fields, { layer: 3, matrix: name });
      await assertRejects(
        () => hosvd(stored, { layout: "heads", balance: false, where: WHERE }, ops),
        TuckerdError,
        expected,
      );
    }
  }
});

gpuTest("matrices of the wrong size are refused before anything is read", async () => {
  using ops = await createGpuOps({ allowFallbackAdapter: true, float16From: 1 });
  const { stored, read } = layerOf(24);
  const wrong = { ...SIZES, headSize: 17, halves: stored.halves! } as unknown as AttentionWeights;
  await assertRejects(
    () => decomposeLayer(wrong, options({ ranks: [16, 4, 2] }), ops),
    TuckerdError,
    "hold 4096 numbers",
  );
  assertEquals([...read], []);
});
