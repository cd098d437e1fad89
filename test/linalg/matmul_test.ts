import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { type FloatArray, matmul, plainProduct } from "../../src/linalg/mod.ts";
import { randomArray } from "../tucker/random.ts";

const SIZES = [[1, 1, 1], [3, 5, 2], [40, 30, 50], [128, 257, 65], [1, 700, 90], [700, 1, 90]] as const;

/** Entry (i, j) of op(a) @ op(b), summed in float64. */
function entry(
  a: FloatArray,
  b: FloatArray,
  at: { i: number; j: number; m: number; k: number; n: number; tA: boolean; tB: boolean },
): number {
  let sum = 0;
  for (let p = 0; p < at.k; p++) {
    sum += a[at.tA ? p * at.m + at.i : at.i * at.k + p]! * b[at.tB ? at.j * at.k + p : p * at.n + at.j]!;
  }
  return sum;
}

for (const [type, tolerance] of [["float32", 2e-6], ["float64", 1e-14]] as const) {
  Deno.test(`matmul in ${type}: every pair of transposes, single and in batches`, async () => {
    for (const [m, k, n] of SIZES) {
      for (const [tA, tB] of [[false, false], [true, false], [false, true], [true, true]] as const) {
        for (const [batchA, batchB] of [[1, 1], [3, 3], [3, 1], [1, 3]] as const) {
          const batch = Math.max(batchA, batchB);
          const make = (count: number, seed: number): FloatArray =>
            type === "float32" ? randomArray(count, seed) : Float64Array.from(randomArray(count, seed));
          const [a, b] = [make(batchA * m * k, m + k), make(batchB * k * n, k + n)];
          const product = await matmul<FloatArray>(a, b, { m, k, n, batch, transposeA: tA, transposeB: tB });
          assertEquals(product.length, batch * m * n);
          assert(type === "float32" ? product instanceof Float32Array : product instanceof Float64Array);
          for (let index = 0; index < product.length; index += 7) {
            const [item, i, j] = [Math.floor(index / (m * n)), Math.floor(index / n) % m, index % n];
            const [partA, partB] = [a.subarray((item % batchA) * m * k), b.subarray((item % batchB) * k * n)];
            const difference = Math.abs(product[index]! - entry(partA, partB, { i, j, m, k, n, tA, tB }));
            assert(
              difference <= tolerance * Math.sqrt(k),
              `${m}×${k}×${n} ${tA} ${tB} ${batchA}/${batchB}: ${difference}`,
            );
          }
        }
      }
    }
  });
}

Deno.test("plainProduct and ONNX Runtime's agree", async () => {
  const [m, k, n] = [33, 41, 37];
  const [a, b] = [Float64Array.from(randomArray(m * k, 1)), Float64Array.from(randomArray(k * n, 2))];
  const [plain, fast] = [plainProduct(a, b, { m, k, n }), await matmul(a, b, { m, k, n })];
  for (let i = 0; i < plain.length; i++) assert(Math.abs(plain[i]! - fast[i]!) <= 1e-13);
});

Deno.test("matmul refuses operands of another size", async () => {
  const error = await assertRejects(
    () => matmul(new Float32Array(7), new Float32Array(6), { m: 2, k: 3, n: 2 }),
    RangeError,
  );
  assert(error.message.includes("7") && error.message.includes("6"), error.message);
});

Deno.test("matmul of a view reads the view, not its buffer", async () => {
  const whole = Float32Array.from({ length: 3 * 64 * 64 }, (_, i) => i < 64 * 64 ? NaN : 1);
  const part = whole.subarray(64 * 64, 2 * 64 * 64);
  const product = await matmul(part, part, { m: 64, k: 64, n: 64 });
  assert(product.every((value) => value === 64));
});
