/** Memory is given back by those who are done with it, not when the collector comes by: arrays that were released are empty. */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { chooseForm } from "../../src/attention/mod.ts";
import { type FactorRole, MATRICES } from "../../src/attention/types.ts";
import { createCpuOps, decomposeLayer, foldFactors, hosvd, reconstruct } from "../../src/tucker/mod.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import type { LayerMode } from "../../src/tucker/types.ts";
import { options, randomWeights, WHERE } from "./layers.ts";
import { randomArray } from "./random.ts";

/** More numbers than are decomposed in float64, whose operations a test doesn't see. */
const SIZES = { hiddenSize: 136, heads: 32, headSize: 32 };

Deno.test("a CPU tensor's numbers are released when it is disposed and what was begun with them is done", async () => {
  using ops = await createCpuOps();
  const data = randomArray(64 * 300, 1);
  const expected = data.slice();
  const tensor = ops.adopt(data, [64, 300]);
  using unit = ops.tensor(Float32Array.from({ length: 64 * 64 }, (_, i) => i % 65 === 0 ? 1 : 0), [64, 64]);
  const product = ops.modeProduct(tensor, 0, unit);
  const shaped = ops.reshape(tensor, [300, 64]);
  tensor[Symbol.dispose]();
  assertEquals(data.length, expected.length, "still needed by the product");
  assertEquals(await ops.read(product), expected);
  assertEquals(data.length, 0, "nobody needs them any more");
  tensor[Symbol.dispose](); // once more does nothing
  assertEquals(await ops.read(product), expected);
  await assertRejects(() => ops.read(tensor), TypeError, "disposed");
  await assertRejects(() => ops.read(shaped), TypeError, "disposed");
  product[Symbol.dispose]();
});

/** Operations that count the tensors which are alive. */
class CountingOps {
  readonly alive = new Set<OpsTensor>();
  largest = 0;
  readonly ops: TuckerOps;

  constructor(ops: TuckerOps) {
    const counted = (tensor: OpsTensor): OpsTensor => {
      this.alive.add(tensor);
      this.largest = Math.max(this.largest, this.alive.size);
      const dispose = tensor[Symbol.dispose].bind(tensor);
      tensor[Symbol.dispose] = () => {
        this.alive.delete(tensor);
        dispose();
      };
      return tensor;
    };
    this.ops = {
      backend: ops.backend,
      adapter: ops.adapter,
      tensor: (data, shape) => counted(ops.tensor(data, shape)),
      adopt: (data, shape) => counted(ops.adopt(data, shape)),
      read: (tensor) => ops.read(tensor),
      reshape: (tensor, shape) => ops.reshape(tensor, shape),
      modeProduct: (tensor, mode, matrix) => counted(ops.modeProduct(tensor, mode, matrix)),
      gram: (tensor, mode) => ops.gram(tensor, mode),
      matmul: (a, b, options) => counted(ops.matmul(a, b, options)),
      [Symbol.dispose]: () => ops[Symbol.dispose](),
    };
  }
}

Deno.test("a decomposition disposes every tensor that it makes", async () => {
  using cpu = await createCpuOps();
  const weights = randomWeights(SIZES, 5);
  for (const mode of ["4d-tucker", "3d-tucker", "laser"] satisfies LayerMode[]) {
    const counting = new CountingOps(cpu);
    await decomposeLayer(weights, options({ mode, ranks: [20, 9, 2], rank: 12, sweeps: 3 }), counting.ops);
    // Single matrices of this size are decomposed in float64, with operations of their own.
    if (mode === "4d-tucker") assert(counting.largest > 3, `only ${counting.largest} tensors were seen`);
    assertEquals(counting.alive.size, 0, mode);
  }
  const counting = new CountingOps(cpu);
  await hosvd(weights, { layout: "heads", balance: false, where: WHERE }, counting.ops);
  assert(counting.largest > 1);
  assertEquals(counting.alive.size, 0, "hosvd");
});

Deno.test("a 4-D decomposition tells when it has copied the weights, and takes them again only for small errors", async () => {
  using cpu = await createCpuOps();
  const ops: TuckerOps = { ...new CountingOps(cpu).ops, backend: "webgpu" }; // on the CPU the weights aren't copied
  const weights = randomWeights(SIZES, 6);
  for (const [ranks, again] of [[[20, 9, 2], []], [[136, 32, 4], MATRICES]] as const) {
    const expected = await decomposeLayer(weights, options({ ranks, sweeps: 2 }), ops);
    let copies = 0;
    const reads: string[] = [];
    const read = (name: typeof MATRICES[number]): Float32Array => {
      if (copies > 0) reads.push(name);
      return weights[name].slice();
    };
    const watched = {
      ...SIZES,
      get query() {
        return read("query");
      },
      get key() {
        return read("key");
      },
      get value() {
        return read("value");
      },
      get output() {
        return read("output");
      },
    };
    const onCopied = (): void => {
      copies++;
    };
    const actual = await decomposeLayer(watched, options({ ranks, sweeps: 2, onCopied }), ops);
    assertEquals(copies, 1);
    assertEquals(reads, [...again], `${ranks}: error ${actual.relativeError}`);
    assertEquals(actual.relativeError, expected.relativeError);
  }
});

/** Large float64 arrays that are made in the meantime, by others' constructor too. */
function watchFloat64(): Disposable & { readonly made: Float64Array[] } {
  const made: Float64Array[] = [];
  const original = globalThis.Float64Array;
  const watching = new Proxy(original, {
    construct(target, args, newTarget): Float64Array {
      const array = Reflect.construct(target, args, newTarget) as Float64Array;
      if (array.length > 1000) made.push(array);
      return array;
    },
  });
  const use = (constructor: typeof original): void => {
    globalThis.Float64Array = constructor;
    original.prototype.constructor = constructor;
  };
  use(watching);
  return { made, [Symbol.dispose]: () => use(original) };
}

Deno.test("what a layer is folded and reconstructed with is given back", async () => {
  using cpu = await createCpuOps();
  const weights = randomWeights(SIZES, 7);
  const biases = { output: randomArray(SIZES.hiddenSize, 8) };
  const block = {
    ...{ layer: 0, name: "test", family: "test", ...SIZES, keyValueHeads: SIZES.heads },
    ...{ cacheNumbersPerToken: 0, cacheNumberBytes: 4 },
  };
  for (const mode of ["4d-tucker", "3d-tucker", "laser"] satisfies LayerMode[]) {
    const { factors } = await decomposeLayer(weights, options({ mode, ranks: [20, 9, 2], rank: 12, sweeps: 1 }), cpu);
    const kind = factors.kind;
    const form = kind === "tucker4"
      ? chooseForm(block, kind, { r3: 2 })
      : chooseForm(block, kind, { matrices: MATRICES });
    const roles: FactorRole[] = form.query === "shared"
      ? ["down", "query.b", "output.a", "up", "output.bias"]
      : ["query.a", "query.b", "key.a", "output.a", "output.b"];
    const slots = roles.map((role) => ({
      layer: 0,
      role,
      name: role,
      shape: ["m", "n"].slice(role.endsWith("bias") ? 1 : 0),
    }));
    using watched = watchFloat64();
    const tensors = foldFactors(factors, biases, weights, form, slots);
    assert(watched.made.length > 2, `${mode}: ${watched.made.length}`);
    assertEquals(watched.made.map(({ length }) => length).filter((length) => length > 0), [], `${mode}, folded`);
    for (const [name, { data }] of tensors) assert(data.every(Number.isFinite) && data.length > 0, name);
    watched.made.splice(0);
    const dense = await reconstruct(factors, weights);
    assertEquals(watched.made.map(({ length }) => length).filter((length) => length > 0), [], `${mode}, reconstructed`);
    assertEquals(dense.query.length, weights.query.length);
  }
});
