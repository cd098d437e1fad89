/**
 * Operators that keep their cache themselves: the compressed cache holds r2 numbers per head, the latent one z for keys and values together,
 * the full one what the model's own does, and decoding token by token through any of them equals the dense reconstruction run at once.
 */
import { assertEquals, assertThrows } from "@std/assert/mod.js";
import type { BlockForm } from "../../src/attention/types.ts";
import { chooseForm, extractWeights, findAttention, rewriteDense, rewriteFactored } from "../../src/attention/mod.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import {
  counted,
  D,
  emptyCache,
  FUSED_CACHES,
  fusedCacheModel,
  H,
  nextPast,
  partsOf,
  SIZE,
} from "../support/fused_caches.ts";
import { randomBasis, seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { projectOnto, reconstruct, stackWeights, unstackWeights } from "../support/tucker_reference.ts";

const TOKENS = 5;
for (const subject of FUSED_CACHES) {
  for (
    const [cache, r3] of (["compressed", "full", "latent"] as const).flatMap((cache) =>
      [[cache, 4], [cache, 3]] as const
    )
  ) {
    Deno.test(`${subject.name}: token by token through a ${cache} cache, stack rank ${r3}`, async () => {
      const model = fusedCacheModel(subject);
      const [block] = findAttention(model).blocks;
      assertEquals([block!.queryKeyExpandedBecause, block!.valueOutputExpandedBecause], [undefined, undefined]);
      const seed = testSeed();
      const random = seeded(seed);
      const { weights } = extractWeights(model, block!);
      const r2 = 1 + Math.floor(random() * SIZE);
      const [u1, u2, u3] = [[D, D / 2], [SIZE, r2], [4, r3]].map(([n, r]) => randomBasis(n!, r!, random)) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const tensor = { d: D, h: SIZE, heads: H, data: stackWeights(weights) };
      const tucker = projectOnto(tensor, { u1, u2, u3 });
      const { model: rewritten, feeds } = factored(model, new Map([[0, tucker]]), cache);
      const replaced = unstackWeights(reconstruct(tucker), tensor);
      const heads = r3 === 4 ? subject.groups : H;
      const z = subject.joint ? [D / 2] : [D / 2, 0];
      const sizes = cache === "latent" ? z : partsOf(subject).map(() => cache === "full" ? SIZE : r2);
      const [lead, stored] = cache === "latent" ? [1, 1] : [2, heads];
      await using dense = await TestSession.load(rewriteDense(model, new Map([[0, replaced]])));
      await using session = await TestSession.load(rewritten);
      const x = Float32Array.from({ length: TOKENS * D }, () => random() - 0.5);
      const expected = (await dense.run({}, {
        x: { shape: [1, TOKENS, D], data: x },
        ...counted(subject, TOKENS),
        ...emptyCache(dense, SIZE),
      }))["y"]!;
      let past: Record<string, Numbers> = emptyCache(session, sizes[0]!);
      for (let t = 0; t < TOKENS; t++) {
        const token = { shape: [1, 1, D], data: x.slice(t * D, (t + 1) * D) };
        const step = await session.run({}, { ...feeds, ...past, ...counted(subject, t + 1), x: token });
        past = nextPast(step);
        const kept = sizes.map((size) => [...subject.joint ? [lead] : [], 1, stored, t + 1, size]);
        assertEquals(Object.values(past).map(({ shape }) => [...shape]), kept);
        const wanted = Array.from(expected.data).slice(t * D, (t + 1) * D);
        const what = `seed ${seed}, token ${t}`;
        assertNear(step["y"]!.data, wanted, { atol: 1e-4 * largestValue(expected.data), rtol: 0, what });
      }
    });
  }
}

Deno.test("com.microsoft.Attention with a cache runs both pairs reduced, by one subspace, or neither", () => {
  const model = fusedCacheModel(FUSED_CACHES.find(({ joint }) => joint)!);
  const [block] = findAttention(model).blocks;
  assertEquals(block!.oneHeadSize, true);
  const separate = chooseForm(block!, "tucker3", { cache: "compressed" });
  assertEquals([separate.queryKey, separate.valueOutput], ["expanded", "expanded"]);
  const form = { ...chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" }), queryKey: "expanded" as const };
  assertThrows(() => rewriteFactored(model, new Map([[0, form]]), { factors: "inputs" }), Error, "heads of one size");
  const half = { ...chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" }), latent: ["key" as const] };
  assertThrows(() => rewriteFactored(model, new Map([[0, half]]), { factors: "inputs" }), Error, "one tensor");
});

Deno.test("MultiHeadAttention stays where key and value heads have one size, and is written as plain operators otherwise", () => {
  const model = fusedCacheModel(FUSED_CACHES.find(({ name }) => name === "MultiHeadAttention")!);
  const [block] = findAttention(model).blocks;
  const form = chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" });
  const stays = (change: Partial<BlockForm>): boolean => {
    const forms = new Map([[0, { ...form, ...change }]]);
    const { proto } = rewriteFactored(model, forms, { factors: "inputs" }).model;
    return proto.graph!.node.some(({ opType }) => opType === "MultiHeadAttention");
  };
  assertEquals([form.queryKey, form.valueOutput], ["reduced", "reduced"]);
  assertEquals([stays({}), stays({ queryKey: "expanded" }), stays({ latent: ["value"] })], [true, false, false]);
});
