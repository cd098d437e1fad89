import { assert, assertAlmostEquals, assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { compressionRatio, createCpuOps, decomposeLayer, reconstruct } from "../../src/tucker/mod.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import type { Ranks } from "../../src/tucker/types.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import { skipGpu } from "../gpu/adapter.ts";
import { goldenTensor, largestDifference, options, readTensors, weightsOf } from "./layers.ts";

const TESTDATA = new URL("../testdata/tucker/", import.meta.url);

interface ConvergedCase {
  readonly model: string;
  readonly intervention: string;
  readonly ranks: Ranks;
  readonly relativeError: number;
  readonly compressionRatio?: number;
  readonly tensor: string;
  readonly reconstruction: string;
}

function convergedCases(): ConvergedCase[] {
  return JSON.parse(Deno.readTextFileSync(new URL("converged.json", TESTDATA))).cases;
}

Deno.test("decomposeLayer reaches the converged decompositions of an independent float64 HOOI", async () => {
  const tensors = readTensors(new URL("converged.safetensors", TESTDATA));
  using ops = await createCpuOps();
  for (
    const { model, intervention, ranks, relativeError, compressionRatio: ratio, tensor, reconstruction }
      of convergedCases()
  ) {
    const what = `${model} ${intervention}`;
    const weights = weightsOf(tensors[tensor]!);
    const result = await decomposeLayer(weights, options({ ranks }), ops);
    assert(result.converged, what);
    assertAlmostEquals(result.relativeError, relativeError, 1e-10, what);
    const difference = largestDifference(
      await reconstruct(result.factors, weights),
      weightsOf(tensors[reconstruction]!),
    );
    assert(difference <= 1e-5, `${what}: Ŵ is off by ${difference}`);
    const [d, h, , heads] = tensors[tensor]!.shape as [number, number, number, number];
    if (ratio !== undefined) assertAlmostEquals(compressionRatio([d, h, 4, heads], ranks), ratio, 1e-9, what);
  }
});

Deno.test("float32 operations converge to the same, as a GPU's have to", async () => {
  using cpu = await createCpuOps();
  const tensors = readTensors(new URL("converged.safetensors", TESTDATA));
  for (const { model, ranks, relativeError, tensor, reconstruction } of convergedCases()) {
    const weights = weightsOf(tensors[tensor]!);
    const result = await decomposeLayer(weights, options({ ranks }), new Float32Only(cpu));
    assert(result.converged, model);
    assertAlmostEquals(result.relativeError, relativeError, 1e-8, model);
    const difference = largestDifference(
      await reconstruct(result.factors, weights),
      weightsOf(tensors[reconstruction]!),
    );
    assert(difference <= 1e-4, `${model}: Ŵ is off by ${difference} after ${result.sweeps} sweeps`);
  }
});

/** The CPU's float32 operations under another name, so that small tensors aren't given to float64. */
class Float32Only implements TuckerOps {
  readonly backend = "webgpu";
  readonly adapter = "CPU in float32";

  constructor(readonly cpu: TuckerOps) {}

  tensor(data: Float32Array, shape: readonly number[]): OpsTensor {
    return this.cpu.tensor(data, shape);
  }

  adopt(data: Float32Array, shape: readonly number[]): OpsTensor {
    return this.cpu.adopt(data, shape);
  }

  read(tensor: OpsTensor): Promise<Float32Array> {
    return this.cpu.read(tensor);
  }

  reshape(tensor: OpsTensor, shape: readonly number[]): OpsTensor {
    return this.cpu.reshape(tensor, shape);
  }

  modeProduct(tensor: OpsTensor, mode: number, matrix: OpsTensor): OpsTensor {
    return this.cpu.modeProduct(tensor, mode, matrix);
  }

  gram(tensor: OpsTensor, mode: number): Promise<Float64Array> {
    return this.cpu.gram(tensor, mode);
  }

  matmul(a: OpsTensor, b: OpsTensor, given?: { transposeA?: boolean; transposeB?: boolean }): OpsTensor {
    return this.cpu.matmul(a, b, given);
  }

  [Symbol.dispose](): void {
    // the owner of the operations disposes them
  }
}

interface GoldenCase {
  readonly kind: string;
  readonly shape: readonly number[];
  /** Of a generated tensor. */
  readonly seed?: number;
  /** Of trained weights: a layer of the embedded model. */
  readonly layer?: number;
  readonly ranks: Ranks;
  readonly relativeError: number;
  readonly sweeps: number;
}

const golden: { readonly cases: readonly GoldenCase[] } = JSON.parse(
  Deno.readTextFileSync(new URL("golden.json", TESTDATA)),
);

/** Holds every case that is given to its golden error. */
async function checkGolden(cases: readonly GoldenCase[], ops: TuckerOps): Promise<void> {
  const model = await loadModel(new URL("../../models/tuckerd-qa/onnx/model.onnx", import.meta.url).pathname);
  const { blocks } = findAttention(model);
  for (const { kind, shape, seed, layer, ranks, relativeError } of cases) {
    const weights = layer === undefined
      ? weightsOf(goldenTensor(kind, shape, seed!))
      : extractWeights(model, blocks[layer]!).weights;
    const { hiddenSize, headSize, heads } = weights;
    assertEquals([hiddenSize, headSize, 4, heads], [...shape]);
    const result = await decomposeLayer(weights, options({ ranks }), ops);
    const which = layer === undefined ? `seed ${seed}` : `layer ${layer}`;
    const what = `${kind} [${shape}] at [${ranks}], ${which}: ${result.relativeError} against ${relativeError}`;
    assert(result.relativeError <= relativeError + 1e-4, what);
    assert(result.relativeError >= relativeError - 3e-3, `${what}: too good, so not the same tensor`);
  }
}

Deno.test("the relative error is never above TensorLy's method's by more than 1e-4", async () => {
  using ops = await createCpuOps();
  await checkGolden(golden.cases, ops);
});

Deno.test("large random tensors take fewer sweeps than TensorLy's method, and end at a lower error", async () => {
  using ops = await createCpuOps();
  const cases = golden.cases.filter(({ kind, shape }) => kind === "random" && shape[0]! >= 384);
  assertEquals(cases.length, 2);
  for (const { kind, shape, seed, ranks, relativeError, sweeps } of cases) {
    const result = await decomposeLayer(weightsOf(goldenTensor(kind, shape, seed!)), options({ ranks }), ops);
    const what = `[${shape}]: ${result.relativeError} after ${result.sweeps} against ${relativeError} after ${sweeps}`;
    assert(result.relativeError <= relativeError && result.sweeps <= sweeps, what);
  }
});

const trained = golden.cases.filter(({ kind }) => kind === "trained");

Deno.test("the golden data hold every layer of the embedded model at several ranks", () => {
  const ranks = (layer: number): string[] =>
    trained.filter((each) => each.layer === layer).map(({ ranks }) => `${ranks}`);
  for (const layer of [0, 1, 2, 3]) assertEquals(new Set(ranks(layer)).size, 6, `layer ${layer}`);
});

if (!skipGpu) {
  Deno.test("webgpu: the trained weights' errors aren't above the golden ones by more than 1e-4", async () => {
    using ops = await createGpuOps({ allowFallbackAdapter: true });
    await checkGolden(trained, ops);
  });

  Deno.test("webgpu: large layers end where they do on the CPU, and not above the golden error by more than 1e-4", async () => {
    using gpu = await createGpuOps({ allowFallbackAdapter: true });
    using cpu = await createCpuOps();
    const cases = golden.cases.filter(({ kind, shape }) =>
      ["power-law", "low-rank"].includes(kind) && shape[0]! >= 384
    );
    assertEquals(cases.length, 4);
    for (const { kind, shape, seed, ranks, relativeError } of cases) {
      const weights = weightsOf(goldenTensor(kind, shape, seed!));
      const result = await decomposeLayer(weights, options({ ranks }), gpu);
      const expected = await decomposeLayer(weights, options({ ranks }), cpu);
      const what = `${kind}: ${result.relativeError}, on the CPU ${expected.relativeError}, golden ${relativeError}`;
      assert(result.relativeError <= relativeError + 1e-4, what);
      assert(Math.abs(result.relativeError - expected.relativeError) <= 1e-5, what);
    }
  });
}
