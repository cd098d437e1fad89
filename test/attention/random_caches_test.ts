/**
 * Operators that keep their cache themselves, in random forms: any layers at any ranks, a prompt and then token by token through the
 * cache, equal the dense weights run at once.
 */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { counted, D, emptyCache, FUSED_CACHES, fusedCacheModel, nextPast, SIZE } from "../support/fused_caches.ts";
import { integer, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const [LAYERS, TOKENS, TRIALS] = [3, 6, 6];

for (const subject of FUSED_CACHES) {
  for (const cache of ["full", "compressed", "latent"] as const) {
    Deno.test(`${subject.name}: random forms of random layers through a ${cache} cache compute what their dense weights do`, async () => {
      const random = seededRandom(subject.name);
      const model = fusedCacheModel(subject, LAYERS);
      const { blocks } = findAttention(model);
      assertEquals(blocks.length, LAYERS);
      for (let trial = 0; trial < TRIALS; trial++) {
        const first = integer(random, 0, LAYERS - 1);
        const chosen = blocks.filter(({ layer }) => layer === first || random() < 0.5);
        const forms = new Map(
          chosen.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, cache)]),
        );
        const { rewritten, feeds, ranks, weights } = withRandomFactors(model, forms, random);
        await using dense = await TestSession.load(rewriteDense(model, weights));
        await using session = await TestSession.load(rewritten);
        const x = Float32Array.from({ length: TOKENS * D }, () => random() - 0.5);
        const tokens = (from: number, to: number): Numbers => ({
          shape: [1, to - from, D],
          data: x.slice(from * D, to * D),
        });
        const whole = { x: tokens(0, TOKENS), ...emptyCache(dense, SIZE), ...counted(subject, TOKENS) };
        const expected = (await dense.run({}, whole))["y"]!;
        let past = emptyCache(session, ranks);
        let to = integer(random, 1, TOKENS - 1);
        for (let from = 0; from < TOKENS; [from, to] = [to, to + 1]) {
          const step = await session.run({}, { ...feeds, ...past, ...counted(subject, to), x: tokens(from, to) });
          past = nextPast(step);
          const wanted = Array.from(expected.data).slice(from * D, to * D);
          const what = `trial ${trial}, tokens ${from} to ${to}, ${structureKey(forms)}`;
          assertNear(step["y"]!.data, wanted, { atol: 1e-4 * largestValue(expected.data), rtol: 0, what });
        }
      }
    });
  }
}
