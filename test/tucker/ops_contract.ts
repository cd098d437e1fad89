/**
 * The contract of `TuckerOps`: every implementation must pass it. Each operation is compared with a twin in plain float64
 * loops, relative to the product of the operands' norms (the scale at which rounding errors of a sum live).
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import type { TuckerOps } from "../../src/tucker/ops.ts";
import { randomArray } from "./random.ts";

/** Largest error of an entry, relative to √(Σ|a||a|)·√(Σ|b||b|) of its sum: some float32 roundings, whatever the length. */
const TOLERANCE = 4e-6;

/** Shapes that matter: sizes off any tile, modes of 1, long outer or inner parts, sums long enough to need care. */
const SHAPES: readonly (readonly number[])[] = [
  [5, 3, 4, 2],
  [1, 1, 1, 1],
  [64, 4, 3, 16],
  [33, 4, 5, 17],
  [7, 1, 129],
  [300, 1, 1, 65],
  [2, 130, 67],
  [9, 5000],
  [5000, 9],
  [16, 20, 9000],
  [3, 4, 5000],
];
const RANKS = [1, 2, 7, 64];

/**
 * Registers the contract's tests.
 *
 * @param name of the implementation, part of every test's name
 * @param create makes the operations; called once for each test, which disposes them
 */
export function opsContract(name: string, create: () => Promise<TuckerOps>): void {
  const contract = (rule: string, body: (ops: TuckerOps) => Promise<void>): void =>
    Deno.test(`${name} operations: ${rule}`, async () => {
      using ops = await create();
      await body(ops);
    });

  contract("tensor and read give back the numbers, and keep a copy of their own", async (ops) => {
    const data = randomArray(60, 1);
    const before = data.slice();
    using tensor = ops.tensor(data, [3, 4, 5]);
    data.fill(0);
    assertEquals(tensor.shape, [3, 4, 5]);
    assertEquals(await ops.read(tensor), before);
    assertEquals(await ops.read(tensor), before, "a second read");
  });

  contract("adopt takes the numbers over", async (ops) => {
    const data = randomArray(60, 4);
    const before = data.slice();
    using tensor = ops.adopt(data, [3, 4, 5]);
    assertEquals(tensor.shape, [3, 4, 5]);
    assertEquals(await ops.read(tensor), before);
  });

  contract("a large tensor survives the way in and out", async (ops) => {
    const data = randomArray(3_000_001, 2);
    using tensor = ops.tensor(data, [3_000_001]);
    const back = await ops.read(tensor);
    assertEquals(back.length, data.length);
    assert(back.every((value, index) => value === data[index]), "numbers changed");
  });

  contract("reshape keeps the numbers and their order", async (ops) => {
    const data = randomArray(24, 3);
    using tensor = ops.tensor(data, [2, 3, 4]);
    const reshaped = ops.reshape(tensor, [6, 4]);
    assertEquals(reshaped.shape, [6, 4]);
    assertEquals(await ops.read(reshaped), data);
  });

  contract("modeProduct equals its float64 twin in every mode", async (ops) => {
    for (const shape of SHAPES) {
      for (const [mode, length] of shape.entries()) {
        const columns = RANKS[(length + mode) % RANKS.length]!;
        const data = randomArray(size(shape), length + mode);
        const factor = randomArray(length * columns, length + mode + 1);
        using tensor = ops.tensor(data, shape);
        using matrix = ops.tensor(factor, [length, columns]);
        using product = ops.modeProduct(tensor, mode, matrix);
        assertEquals(product.shape, shape.with(mode, columns));
        const expected = modeProductTwin(data, shape, { mode, factor, columns });
        assertClose(await ops.read(product), expected, `[${shape}] ×${mode} [${length},${columns}]`);
      }
    }
  });

  contract("gram equals its float64 twin in every mode and is exactly symmetric", async (ops) => {
    for (const shape of SHAPES) {
      for (const [mode, length] of shape.entries()) {
        if (length > 300) continue;
        const data = randomArray(size(shape), length + 7 * mode);
        using tensor = ops.tensor(data, shape);
        const gram = await ops.gram(tensor, mode);
        assert(gram instanceof Float64Array);
        assertClose(gram, gramTwin(data, shape, mode), `Gram of [${shape}] in mode ${mode}`);
        for (let i = 0; i < length; i++) {
          for (let j = 0; j < i; j++) assertEquals(gram[i * length + j], gram[j * length + i], `[${shape}] ${mode}`);
        }
      }
    }
  });

  contract("gram doesn't drift on long sums of equal sign", async (ops) => {
    const rows = 60_000; // summed one after the other in float32, the error would be about 1e-4
    const data = Float32Array.from(randomArray(rows * 9, 5), (value) => Math.abs(value) + 0.5);
    using tensor = ops.tensor(data, [rows, 9]);
    assertClose(await ops.gram(tensor, 1), gramTwin(data, [rows, 9], 1), "long sum");
  });

  contract("matmul equals its float64 twin with and without transposes", async (ops) => {
    for (
      const [m, k, n] of [[3, 4, 5], [1, 1, 1], [65, 130, 33], [128, 64, 256], [17, 3000, 9], [700, 5, 64]] as const
    ) {
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          const left = randomArray(m * k, m + k);
          const right = randomArray(k * n, k + n);
          using a = ops.tensor(left, transposeA ? [k, m] : [m, k]);
          using b = ops.tensor(right, transposeB ? [n, k] : [k, n]);
          using product = ops.matmul(a, b, { transposeA, transposeB });
          assertEquals(product.shape, [m, n]);
          const expected = new Twin(m, n);
          for (let i = 0; i < m; i++) {
            for (let p = 0; p < k; p++) {
              const x = left[transposeA ? p * m + i : i * k + p]!;
              for (let j = 0; j < n; j++) expected.add(i * n + j, x, right[transposeB ? j * k + p : p * n + j]!);
            }
          }
          assertClose(await ops.read(product), expected, `${m}×${k}×${n} ${transposeA} ${transposeB}`);
        }
      }
    }
  });

  contract("filterStep, where there is one, equals its float64 twin both ways", async (ops) => {
    if (ops.filterStep === undefined) return;
    for (const [m, n, columns] of [[65, 130, 33], [130, 65, 7], [3, 4, 1]] as const) {
      const data = randomArray(m * n, m + n);
      using matrix = ops.tensor(data, [m, n]);
      for (const across of [false, true]) {
        const rows = across ? n : m;
        const [current, before] = [randomArray(rows * columns, 3), randomArray(rows * columns, 4)];
        const held = [current.slice(), before.slice()];
        const actual = await ops.filterStep(matrix, { current, before, scale: 0.75, across });
        assertEquals([current, before], held, "what went in stays as it was");
        const at = (i: number, p: number): number => data[across ? p * n + i : i * n + p]!;
        const expected = new Twin(rows, columns);
        for (let i = 0; i < rows; i++) {
          for (let k = 0; k < rows; k++) {
            let gram = 0;
            for (let p = 0; p < (across ? m : n); p++) gram += at(i, p) * at(k, p);
            for (let j = 0; j < columns; j++) expected.add(i * columns + j, 1.5 * gram, current[k * columns + j]!);
          }
          for (let j = 0; j < columns; j++) {
            expected.add(i * columns + j, -2, current[i * columns + j]!);
            expected.add(i * columns + j, -1, before[i * columns + j]!);
          }
        }
        assertClose(actual, expected, `${m}×${n}, ${columns} columns, across ${across}`);
      }
    }
  });

  contract("results feed further operations without a read between", async (ops) => {
    const data = randomArray(6 * 4 * 5, 11);
    const factor = randomArray(6 * 2, 12);
    using tensor = ops.tensor(data, [6, 4, 5]);
    using matrix = ops.tensor(factor, [6, 2]);
    using product = ops.modeProduct(tensor, 0, matrix);
    const gram = await ops.gram(ops.reshape(product, [2, 20]), 0);
    const twin = modeProductTwin(data, [6, 4, 5], { mode: 0, factor, columns: 2 });
    assertClose(gram, gramTwin(Float32Array.from(twin.values), [2, 20], 0), "chained");
  });

  contract("extreme but normalised entries: tiny beside large", async (ops) => {
    const data = Float32Array.from(randomArray(40 * 30, 13), (value, index) => index % 2 === 0 ? value : value * 1e-20);
    using tensor = ops.tensor(data, [40, 30]);
    assertClose(await ops.gram(tensor, 0), gramTwin(data, [40, 30], 0), "mixed scales");
  });

  contract("wrong shapes are refused with the sizes in the text", async (ops) => {
    using tensor = ops.tensor(new Float32Array(12), [3, 4]);
    using matrix = ops.tensor(new Float32Array(10), [5, 2]);
    await refuses(() => ops.tensor(new Float32Array(5), [2, 3]));
    await refuses(() => ops.reshape(tensor, [5, 2]));
    await refuses(() => ops.modeProduct(tensor, 0, matrix));
    await refuses(() => ops.modeProduct(tensor, 2, matrix));
    await refuses(() => ops.matmul(tensor, matrix));
    await refuses(() => ops.gram(tensor, 2));
  });
}

async function refuses(operation: () => unknown): Promise<void> {
  const error = await assertRejects(async () => {
    await operation();
  });
  assert(error instanceof RangeError || error instanceof TypeError, `${error}`);
  assert(/\d/.test(error.message), `no sizes in "${error.message}"`);
}

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

/** Sums in float64, and beside them the scale of each sum. */
class Twin {
  readonly values: Float64Array;
  readonly #left: Float64Array;
  readonly #right: Float64Array;

  constructor(rows: number, columns: number) {
    this.values = new Float64Array(rows * columns);
    this.#left = new Float64Array(rows * columns);
    this.#right = new Float64Array(rows * columns);
  }

  add(index: number, x: number, y: number): void {
    this.values[index]! += x * y;
    this.#left[index]! += x * x;
    this.#right[index]! += y * y;
  }

  scale(index: number): number {
    return Math.sqrt(this.#left[index]!) * Math.sqrt(this.#right[index]!);
  }
}

interface ModeFactor {
  readonly mode: number;
  readonly factor: Float32Array;
  readonly columns: number;
}

function modeProductTwin(data: Float32Array, shape: readonly number[], { mode, factor, columns }: ModeFactor): Twin {
  const [outer, length, inner] = [size(shape.slice(0, mode)), shape[mode]!, size(shape.slice(mode + 1))];
  const twin = new Twin(outer * columns, inner);
  for (let o = 0; o < outer; o++) {
    for (let k = 0; k < length; k++) {
      for (let j = 0; j < columns; j++) {
        for (let i = 0; i < inner; i++) {
          twin.add((o * columns + j) * inner + i, factor[k * columns + j]!, data[(o * length + k) * inner + i]!);
        }
      }
    }
  }
  return twin;
}

function gramTwin(data: Float32Array, shape: readonly number[], mode: number): Twin {
  const [outer, length, inner] = [size(shape.slice(0, mode)), shape[mode]!, size(shape.slice(mode + 1))];
  const twin = new Twin(length, length);
  for (let o = 0; o < outer; o++) {
    for (let j = 0; j < length; j++) {
      for (let k = 0; k < length; k++) {
        for (let i = 0; i < inner; i++) {
          twin.add(j * length + k, data[(o * length + j) * inner + i]!, data[(o * length + k) * inner + i]!);
        }
      }
    }
  }
  return twin;
}

function assertClose(actual: Float32Array | Float64Array, expected: Twin, what: string): void {
  assertEquals(actual.length, expected.values.length, what);
  for (const [index, value] of actual.entries()) {
    const difference = Math.abs(value - expected.values[index]!);
    if (!(difference <= TOLERANCE * expected.scale(index))) {
      throw new Error(`${what}: entry ${index} is ${value}, expected ${expected.values[index]} (off by ${difference})`);
    }
  }
}
