/**
 * The trial that decides between a GPU and the CPU: what it computes, and that nothing of it stays.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert/mod.js";
import { createCpuOps } from "../../src/tucker/cpu_ops.ts";
import { createGpuOps } from "../../src/tucker/gpu_ops.ts";
import type { OpsTensor, TuckerOps } from "../../src/tucker/ops.ts";
import { trialSeconds } from "../../src/tucker/trial.ts";
import { skipGpu } from "../gpu/adapter.ts";

/** Operations that note the sizes of products, and tensors that weren't disposed. */
function watched(ops: TuckerOps): { ops: TuckerOps; products: string[]; open: Set<OpsTensor> } {
  const products: string[] = [], open = new Set<OpsTensor>();
  const watch = (tensor: OpsTensor): OpsTensor => {
    open.add(tensor);
    const dispose = tensor[Symbol.dispose].bind(tensor);
    tensor[Symbol.dispose] = () => (open.delete(tensor), dispose());
    return tensor;
  };
  const proxy = new Proxy(ops, {
    get(of, name: keyof TuckerOps): unknown {
      if (name === "tensor" || name === "adopt") {
        return (data: Float32Array, shape: readonly number[]) => watch(of[name](data, shape));
      }
      if (name === "matmul") {
        return (...given: Parameters<TuckerOps["matmul"]>) => {
          const [a, b, { transposeA = false } = {}] = given;
          products.push(`${a.shape}${transposeA ? "ᵀ" : ""} ${b.shape}`);
          return watch(of.matmul(...given));
        };
      }
      const value = of[name];
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
  return { ops: proxy, products, open };
}

const BACKENDS = {
  cpu: { make: createCpuOps, ignore: false },
  webgpu: { make: () => createGpuOps({ allowFallbackAdapter: true }), ignore: skipGpu },
};

for (const [name, { make, ignore }] of Object.entries(BACKENDS)) {
  Deno.test({ name: `${name}: four steps with a matrix of the sizes given, and nothing stays`, ignore }, async () => {
    using made = await make();
    const { ops, products, open } = watched(made);
    const seconds = await trialSeconds(ops, 48, 256);
    assert(seconds > 0 && seconds < Infinity, `${seconds} s`);
    assertEquals(products, Array.from({ length: 4 }, () => ["48,256ᵀ 48,64", "48,256 256,64"]).flat());
    assertEquals(open.size, 0);
  });
}

Deno.test("a layer of GPT-J's sizes is cut to 4 Mi numbers", async () => {
  const { ops, products } = watched(await createCpuOps());
  await trialSeconds(ops, 4096, 16384);
  assertEquals(products.slice(0, 2), ["4096,1024ᵀ 4096,64", "4096,1024 1024,64"]);
});
