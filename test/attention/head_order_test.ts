/** Heads that stand in another order than the columns of their projections: random forms compute what dense weights do. */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { headsReordered, original } from "../support/edited_roberta.ts";
import { oracleReference } from "../support/oracle.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { TestSession } from "../support/session.ts";

Deno.test("weights come in the order of the heads, and random forms put them where the file has them", async () => {
  const model = headsReordered();
  const { blocks } = findAttention(model);
  const [turned, plain] = [model, original].map((each) => extractWeights(each, findAttention(each).blocks[0]!).weights);
  // Head 0 is the file's head 2.
  const rows = (weights: typeof turned, head: number) => weights!.output.subarray(head * 8 * 32, (head + 1) * 8 * 32);
  assertEquals(largestDifference(rows(turned, 0), rows(plain, 2)), 0);
  const seed = testSeed();
  const random = seeded(seed);
  const { inputs } = oracleReference("roberta").cases[1]!;
  for (let trial = 0; trial < 12; trial++) {
    const forms = new Map(blocks.map((block): [number, BlockForm] => [block.layer, randomForm(block, random)]));
    const output = (["shared", "pair", "dense"] as const)[trial];
    if (output !== undefined) forms.set(0, { ...forms.get(0)!, valueOutput: "expanded", output });
    const { rewritten, feeds, weights } = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(model, weights));
    await using session = await TestSession.load(rewritten);
    const [expected, actual] = [await dense.run(inputs), await session.run(inputs, feeds)];
    for (const [output, { data }] of Object.entries(expected)) {
      const what = `seed ${seed}, trial ${trial}, ${structureKey(forms)}, ${output}`;
      assertNear(actual[output]!.data, data, { atol: 1e-4 * largestValue(data), rtol: 0, what });
    }
  }
});
