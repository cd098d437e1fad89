import { assert, assertAlmostEquals } from "@std/assert/mod.js";
import { compressionRatio, createCpuOps, decomposeLayer, reconstruct } from "../../src/tucker/mod.ts";
import type { Ranks } from "../../src/tucker/types.ts";
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

Deno.test("decomposeLayer reaches the converged decompositions of an independent float64 HOOI", async () => {
  const { cases }: { cases: ConvergedCase[] } = JSON.parse(Deno.readTextFileSync(new URL("converged.json", TESTDATA)));
  const tensors = readTensors(new URL("converged.safetensors", TESTDATA));
  using ops = await createCpuOps();
  for (const { model, intervention, ranks, relativeError, compressionRatio: ratio, tensor, reconstruction } of cases) {
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

interface GoldenCase {
  readonly kind: string;
  readonly shape: readonly number[];
  readonly seed: number;
  readonly ranks: Ranks;
  readonly relativeError: number;
}

Deno.test("the relative error is never above TensorLy's method's by more than 1e-4", async () => {
  const golden: { cases: GoldenCase[] } = JSON.parse(Deno.readTextFileSync(new URL("golden.json", TESTDATA)));
  using ops = await createCpuOps();
  for (const { kind, shape, seed, ranks, relativeError } of golden.cases) {
    const weights = weightsOf(goldenTensor(kind, shape, seed));
    const result = await decomposeLayer(weights, options({ ranks }), ops);
    const what = `${kind} [${shape}] at [${ranks}], seed ${seed}: ${result.relativeError} against ${relativeError}`;
    assert(result.relativeError <= relativeError + 1e-4, what);
    assert(result.relativeError >= relativeError - 3e-3, `${what}: too good, so not the same tensor`);
  }
});
