/** The tensor of weights that stay where they are, against the tensor of their numbers. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert/mod.js";
import { MATRICES } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import { createCpuOps, decomposeLayer } from "../../src/tucker/mod.ts";
import { HEAD_SIZE, HIDDEN } from "../../src/tucker/layer_tensor.ts";
import { tensorise } from "../../src/tucker/tensorise.ts";
import type { Layout } from "../../src/tucker/types.ts";
import { WeightTensor } from "../../src/tucker/weight_tensor.ts";
import { options, randomWeights } from "./layers.ts";
import { randomArray } from "./random.ts";

/** Rows that don't fill the strips in which the weights are read. */
const SIZES = { hiddenSize: 44, heads: 4, headSize: 11 };
const FACTORS = [0.5, 2, 0.25, 1.5];

/** Largest difference of two arrays; NaN where one holds it. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assertEquals(actual.length, expected.length);
  return Array.from(actual).reduce((largest, value, i) => {
    const distance = Math.abs(value - expected[i]!);
    return distance <= largest ? largest : distance;
  }, 0);
}

for (const layout of ["heads", "reference"] satisfies Layout[]) {
  for (const matrices of [MATRICES, ["output"], ["key", "output"]] as const) {
    Deno.test(`weights where they lie are projected as their tensor is: ${layout}, ${matrices}`, async () => {
      using ops = await createCpuOps();
      const weights = randomWeights(SIZES, 71);
      const { hiddenSize: d, heads, headSize: h } = SIZES;
      const chosen = { matrices, factors: FACTORS.slice(0, matrices.length), layout };
      const tensor = new WeightTensor(ops, weights, chosen);
      const numbers = tensorise(weights, chosen, Float64Array);
      const stack = matrices.length;
      assertEquals(tensor.shape, [d, stack, heads, h]);

      for (const rank of [3, 136]) { // few and many columns
        const u1 = new Float64Array(randomArray(d * rank, 5));
        const expected = new Float64Array(rank * stack * heads * h);
        for (let a = 0; a < d; a++) {
          for (let r = 0; r < rank; r++) {
            for (let i = 0; i < stack * heads * h; i++) {
              expected[r * stack * heads * h + i]! += u1[a * rank + r]! * numbers[a * stack * heads * h + i]!;
            }
          }
        }
        using hidden = await tensor.project(HIDDEN, u1);
        assertEquals(hidden.shape, [rank, stack, heads, h]);
        const off = difference(await ops.read(hidden), expected);
        assert(off <= 2e-5, `hidden, ${rank} columns: off by ${off}`);
      }

      const u2 = new Float64Array(randomArray(h * 3, 6));
      const expected = new Float64Array(d * stack * heads * 3);
      for (let row = 0; row < d * stack * heads; row++) {
        for (let b = 0; b < h; b++) {
          for (let r = 0; r < 3; r++) expected[row * 3 + r]! += numbers[row * h + b]! * u2[b * 3 + r]!;
        }
      }
      using head = await tensor.project(HEAD_SIZE, u2);
      assertEquals(head.shape, [d, stack, heads, 3]);
      const off = difference(await ops.read(head), expected);
      assert(off <= 1e-5, `head size: off by ${off}`);

      for (const r3 of [1, stack]) {
        const u3 = new Float64Array(randomArray(stack * r3, 7));
        const mixed = new Float64Array(d * r3 * heads * 3);
        const inner = heads * 3;
        for (let a = 0; a < d; a++) {
          for (let s = 0; s < stack; s++) {
            for (let k = 0; k < r3; k++) {
              for (let i = 0; i < inner; i++) {
                mixed[(a * r3 + k) * inner + i]! += u3[s * r3 + k]! * expected[(a * stack + s) * inner + i]!;
              }
            }
          }
        }
        using small = await tensor.projectSmall({ u2, u3 });
        assertEquals(small.shape, [d, r3, heads, 3]);
        const off = difference(await ops.read(small), mixed);
        assert(off <= 2e-5, `both small modes, ${r3} of the stack: off by ${off}`);
      }

      const gram = new Float64Array(stack * stack);
      const width = heads * h;
      for (let a = 0; a < d; a++) {
        for (let s = 0; s < stack; s++) {
          for (let t = 0; t < stack; t++) {
            for (let i = 0; i < width; i++) {
              gram[s * stack + t]! += numbers[(a * stack + s) * width + i]! * numbers[(a * stack + t) * width + i]!;
            }
          }
        }
      }
      const offGram = difference(await tensor.stackGram(), gram);
      assert(offGram <= 1e-5, `Gram matrix of the stack: off by ${offGram}`);
    });
  }
}

Deno.test("a large layer ends at the same error whether its weights are copied into a tensor or not", async () => {
  using ops = await createCpuOps();
  const copying = { ...ops, ...bound(ops), backend: "webgpu" as const };
  const small = { hiddenSize: 136, heads: 32, headSize: 32 };
  const cases = [
    [small, { ranks: [40, 12, 2] }],
    [small, { ranks: [40, 12, 4], balance: true }],
    // the hidden factor is improved by filters: of A Aᵀ (400 × 512) and of Aᵀ A (640 × 384)
    [{ hiddenSize: 400, heads: 8, headSize: 48 }, { ranks: [150, 32, 2], sweeps: 4 }],
    [{ hiddenSize: 640, heads: 8, headSize: 32 }, { ranks: [140, 24, 2], sweeps: 4 }],
  ] as const;
  for (const [sizes, given] of cases) {
    const weights = randomWeights(sizes, 72);
    const inPlace = await decomposeLayer(weights, options(given), ops);
    const copied = await decomposeLayer(weights, options(given), copying);
    const off = Math.abs(inPlace.relativeError - copied.relativeError);
    assert(off <= 2e-6, `${given.ranks}: ${inPlace.relativeError} and ${copied.relativeError}`);
    assertEquals(inPlace.sweeps, copied.sweeps);
  }
});

Deno.test("weights near the ends of float32's range end at the errors of the same weights at 1", async () => {
  using ops = await createCpuOps();
  const weights = randomWeights({ hiddenSize: 136, heads: 32, headSize: 32 }, 74);
  const given = options({ ranks: [40, 12, 2] });
  const { relativeError } = await decomposeLayer(weights, given, ops);
  for (const scale of [1e-36, 1e34]) {
    const scaled = { ...weights };
    for (const name of MATRICES) scaled[name] = weights[name].map((value) => value * scale);
    assert(!WeightTensor.takes({ factors: [1 / scale] }), "such weights are copied and scaled first");
    const off = Math.abs((await decomposeLayer(scaled, given, ops)).relativeError - relativeError);
    assert(off <= 1e-5, `at ${scale}: off by ${off}`);
  }
});

Deno.test("a large layer's number that isn't finite is named with its matrix and place", async () => {
  using ops = await createCpuOps();
  for (const [name, bad] of [["key", NaN], ["output", Infinity]] as const) {
    const weights = randomWeights({ hiddenSize: 136, heads: 32, headSize: 32 }, 73);
    weights[name][4711] = bad;
    const error = await assertRejects(
      () => decomposeLayer(weights, options({ ranks: [40, 12, 2] }), ops),
      TuckerdError,
    );
    assertStringIncludes(error.message, `the ${name} weights hold ${bad} at position 4711`);
  }
});

function bound(ops: Awaited<ReturnType<typeof createCpuOps>>): Omit<typeof ops, "backend" | "view" | "weights"> {
  return {
    adapter: ops.adapter,
    tensor: (data, shape) => ops.tensor(data, shape),
    adopt: (data, shape) => ops.adopt(data, shape),
    read: (tensor) => ops.read(tensor),
    reshape: (tensor, shape) => ops.reshape(tensor, shape),
    modeProduct: (tensor, mode, matrix) => ops.modeProduct(tensor, mode, matrix),
    gram: (tensor, mode) => ops.gram(tensor, mode),
    matmul: (a, b, given) => ops.matmul(a, b, given),
    [Symbol.dispose]: () => ops[Symbol.dispose](),
  };
}
