/**
 * A process of its own that runs the tiny projection and the bert-qa model on the provider named by its argument, and prints
 * what it got as JSON. The GPU driver is chosen by the environment, which a Vulkan loader reads once per process.
 *
 * @module
 */
import { print } from "../../src/log.ts";
import { TuckerdError } from "../../src/errors.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import type { HostTensor } from "../../src/runtime/types.ts";
import { modelOf, projectionModel } from "./models.ts";

/** What the process prints. */
export type ProviderResult =
  | { readonly provider: string; readonly y: number[]; readonly start: number[]; readonly end: number[] }
  | { readonly kind: string; readonly error: string };

/** A sequence of 24 token ids, as a row of int64. */
function row(value: (index: number) => number): HostTensor {
  return {
    type: "int64",
    shape: [1, 24],
    data: BigInt64Array.from({ length: 24 }, (_, index) => BigInt(value(index))),
  };
}

async function run(provider: "auto" | "cpu" | "webgpu"): Promise<ProviderResult> {
  try {
    await using engine = await createEngine({ provider });
    await engine.install(1, projectionModel(3, [[1, 2], [3, 4], [5, 6]]));
    const x: HostTensor = { type: "float32", shape: [2, 3], data: new Float32Array([1, 2, 3, -1, 0.5, 0.25]) };
    const { y } = await engine.run(1, { x });
    const path = new URL("../testdata/serving/bert-qa/onnx/model.onnx", import.meta.url).pathname;
    await engine.install(2, modelOf({ path }, "bert-qa"));
    const { start_logits, end_logits } = await engine.run(2, {
      input_ids: row((index) => index === 0 ? 2 : 5 + index * 17 % 460),
      attention_mask: row(() => 1),
      token_type_ids: row((index) => index < 8 ? 0 : 1),
    });
    const numbers = (tensor: HostTensor): number[] => Array.from(tensor.data, Number);
    return { provider: engine.provider, y: numbers(y!), start: numbers(start_logits!), end: numbers(end_logits!) };
  } catch (error) {
    if (!(error instanceof TuckerdError)) throw error;
    return { kind: error.kind, error: error.message };
  }
}

if (import.meta.main) print(JSON.stringify(await run(Deno.args[0] as "auto" | "cpu" | "webgpu")));
