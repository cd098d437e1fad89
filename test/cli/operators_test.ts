/** `compress --json` says of every softmax and attention operator what became of it, where nothing can be compressed too. */
import { assert, assertEquals, assertMatch } from "@std/assert/mod.js";
import { ARCHITECTURES } from "../support/encoders.ts";
import { runProgram } from "../support/program.ts";

interface Operator {
  readonly node: string;
  readonly operator: string;
  readonly verdict: string;
  readonly layer?: number;
  readonly reason?: string;
}

/** Runs `compress` on a model file, into a folder that goes again. */
async function compress(file: string, ...more: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const out = await Deno.makeTempDir();
  try {
    const model = new URL(file, ARCHITECTURES).pathname;
    return await runProgram(["compress", "--model", model, "--out", `${out}/small`, "--cache-dir", "off", ...more]);
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

const LEFT: Readonly<Record<string, RegExp>> = {
  "mobilebert/torchscript-17-sdpa/model.onnx": /they don't stack into one tensor/,
  "squeezebert/dynamo-18-eager/model.onnx": /it comes from Conv/,
  "convbert/torchscript-17-eager/model.onnx": /16 rows for 2 heads of 4/,
};

for (const [file, reason] of Object.entries(LEFT)) {
  Deno.test(`${file}: compress exits 1 and says why, --json operator by operator`, async () => {
    const { code, stdout, stderr } = await compress(file, "--ranks", "4,4,4", "--json");
    assertEquals(code, 1, stderr);
    assertMatch(stderr, /^tuckerd: no attention block in .* can be compressed: Softmax /);
    assertMatch(stderr, reason);
    const { error, operators } = JSON.parse(stdout) as { error: string; operators: Operator[] };
    assert(stderr.includes(error));
    assert(operators.length >= 2);
    for (const { node, operator, verdict, layer, reason } of operators) {
      assertEquals([operator, verdict, layer], ["Softmax", "left", undefined]);
      assert(node !== "" && reason !== undefined && stderr.includes(`${operator} ${node}: ${reason}`));
    }
    assert(operators.some((operator) => reason.test(operator.reason!)));
  });
}

Deno.test("compress --json lists what was found with its layer, and why it runs at full size", async () => {
  const { code, stdout, stderr } = await compress("modernbert/dynamo-18-sdpa/model.onnx", "--ranks", "4,4,4", "--json");
  assertEquals(code, 0, stderr);
  const { operators, layers } = JSON.parse(stdout) as { operators: Operator[]; layers: unknown[] };
  assertEquals(operators.map(({ operator, verdict, layer }) => [operator, verdict, layer]), [
    ["Softmax", "found", 0],
    ["Softmax", "found", 1],
  ]);
  assertEquals(layers.length, 2);
  for (const { reason } of operators) assertMatch(reason!, /^queries and keys run at full size: query: Mul/);
});
