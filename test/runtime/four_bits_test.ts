/** Four-bit matrices between DequantizeLinear and MatMul, served: the numbers that the file says, before and after a compression. */
import { assert } from "@std/assert/mod.js";
import { resolveOptions } from "../../src/compress/options.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import type { HostTensor } from "../../src/runtime/types.ts";
import { assertNear } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { nestedNumbers, nestedShape, oracleFormats } from "../support/oracle.ts";

Deno.test("a served model of 4-bit matrices gives the file's outputs: as it is, and with every layer at full ranks", async () => {
  const { path, reference } = oracleFormats().find(({ format }) => format === "int4-qdq")!;
  await using opened = await openTestCompressor(path);
  await using engine = await createEngine({ provider: "cpu" });
  const requests = [{ mode: "none" }, { ranks: [32, 8, 4] }] as const;
  for (const [generation, request] of requests.entries()) {
    await engine.install(generation, await opened.compressor.compress(resolveOptions(request)));
    let compared = 0;
    for (const { name, inputs, outputs } of reference.cases) {
      const fed = Object.entries(inputs).map(([input, nested]): [string, HostTensor] => [input, {
        type: "int64",
        shape: nestedShape(nested),
        data: BigInt64Array.from(nestedNumbers(nested), BigInt),
      }]);
      const results = await engine.run(generation, Object.fromEntries(fed));
      for (const [output, nested] of Object.entries(outputs)) {
        const actual = Array.from(results[output]!.data, Number);
        const what = `${JSON.stringify(request)} ${name} ${output}`;
        assertNear(actual, nestedNumbers(nested), { atol: 1e-4, rtol: 1e-4, what });
        compared++;
      }
    }
    assert(compared > 0);
  }
});
