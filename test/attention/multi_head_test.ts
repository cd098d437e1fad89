/**
 * com.microsoft.MultiHeadAttention and com.microsoft.Attention with random masks, biases and caches at random ranks: fused or written as plain operators, it equals ONNX
 * Runtime's own operator on the dense weights.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { emptyCache, nextPast } from "../support/fused_caches.ts";
import {
  BATCH,
  D,
  H,
  LAYERS,
  multiHeadModel,
  type MultiHeadOptions,
  randomOptions,
  SIZE,
} from "../support/multi_head.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const TRIALS = 200;

/** Inputs of a call with `tokens` new positions behind `before`. */
function feedsOf(
  { mask, bias, cross, own, rotated }: MultiHeadOptions,
  random: Random,
  [before, tokens, keys]: readonly [number, number, number],
): Record<string, Numbers> {
  const total = before + keys;
  const filled = (shape: readonly number[], make: (i: number) => number): Numbers => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => make(i)),
  });
  // Every token sees the first key: scores that are all lowered by 10,000 keep few digits.
  const counts = (i: number): number => i % total === 0 || random() < 0.5 ? 1 : 0;
  const lengths = (): number[] => Array.from({ length: BATCH }, () => integer(random, 1, total));
  const sums = [0, 0, 0].map((_, i) => i * total);
  const masks: Readonly<Record<string, () => Numbers>> = {
    lengths: () => ({ shape: [BATCH], data: lengths() }),
    sums: () => ({ shape: [3 * BATCH + 2], data: [...lengths(), ...sums, ...sums] }),
    rows: () => filled([BATCH, total], counts),
    tokens: () => filled([BATCH, tokens, total], counts),
  };
  const biases = ([batch, heads]: NonNullable<MultiHeadOptions["bias"]>): Numbers =>
    filled([batch === 1 ? 1 : BATCH, heads === 1 ? 1 : H, tokens, total], () => random() - 0.5);
  return {
    x: filled([BATCH, tokens, D], () => random() - 0.5),
    ...(rotated ? { positions: filled([BATCH, tokens], (i) => before + i % tokens + Math.floor(i / tokens)) } : {}),
    ...(cross.length > 0 ? { e: filled([BATCH, keys, D], () => random() - 0.5) } : {}),
    ...Object.assign(
      {},
      ...(own ? [0, 1] : [0]).map((layer) => ({
        ...(mask === undefined ? {} : { [`mask.${layer}`]: masks[mask]!() }),
        ...(bias === undefined ? {} : { [`bias.${layer}`]: biases(bias) }),
      })),
    ),
  };
}

Deno.test("MultiHeadAttention and com.microsoft.Attention: random masks, biases and caches at random ranks compute what the operator does", async () => {
  const random = seededRandom("multi-head attention");
  for (let trial = 0; trial < TRIALS; trial++) {
    const options = randomOptions(random);
    const model = multiHeadModel(options, random);
    const { blocks } = findAttention(model);
    assertEquals(blocks.length, LAYERS);
    for (const block of blocks) {
      const { queryKeyExpandedBecause, valueOutputExpandedBecause, noLatentCacheBecause, keyRotation } = block;
      const none = options.keys === "all" ? "the graph has no key-value cache" : undefined;
      assertEquals([valueOutputExpandedBecause, noLatentCacheBecause], [undefined, none]);
      if (options.rotated) {
        assertMatch(queryKeyExpandedBecause!, /^query: com.microsoft.RotaryEmbedding .* changes it$/);
      } else assertEquals(queryKeyExpandedBecause, undefined);
      if (options.rotated && none === undefined) assertEquals(keyRotation?.coefficients, SIZE);
    }
    const chosen = blocks.filter(({ layer }) => layer === 0 || random() < 0.7);
    const forms = new Map(
      chosen.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, "latent")]),
    );
    const { rewritten, feeds, ranks, weights } = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(model, weights));
    await using session = await TestSession.load(rewritten);
    let pasts = [dense, session].map((each): Record<string, Numbers> => {
      const past = Object.entries(emptyCache(each, ranks));
      return Object.fromEntries(past.map(([name, { shape, data }]) => [name, { shape: shape.with(-4, BATCH), data }]));
    });
    const keeps = options.keys === "cached" || options.keys === "outside";
    const calls = keeps ? [integer(random, 1, 4), 1, 2] : [integer(random, 2, 6)];
    let before = 0;
    for (const tokens of calls) {
      const keys = options.cross.length > 0 ? integer(random, 1, 6) : tokens;
      const fed = feedsOf(options, random, [before, tokens, keys]);
      const expected = await dense.run({}, { ...pasts[0], ...fed });
      const actual = await session.run({}, { ...feeds, ...pasts[1], ...fed });
      pasts = [expected, actual].map(nextPast);
      before += keys;
      const heads = options.projecting ? 2 : 1;
      for (const { name, type } of rewritten.proto.graph!.output.filter(({ name }) => name.startsWith("present."))) {
        const { case: kind, value } = type!.tensorType!.shape!.dim[heads]!.value;
        assertEquals(kind === "dimValue" && Number(value), actual[name]!.shape[heads], name);
      }
      const what = `${JSON.stringify({ ...options, before, tokens })} ${structureKey(forms)}`;
      const wanted = expected["y"]!.data;
      assertNear(actual["y"]!.data, wanted, { atol: 1e-4 * largestValue(wanted), rtol: 0, what });
    }
  }
});

Deno.test("com.microsoft.Attention that is told where rows begin is left as it is, since no other operator is", () => {
  const random = seededRandom("bounds");
  const options: MultiHeadOptions = {
    ...randomOptions(random),
    ...{
      projecting: true,
      rotated: false,
      groups: H,
      biased: undefined,
      keys: "cached",
      cross: [],
      own: false,
      mask: "bounds",
      bias: undefined,
    },
  };
  const { blocks, skipped } = findAttention(multiHeadModel(options, random));
  assertEquals(blocks, []);
  for (const { reason } of skipped) {
    assertMatch(
      reason,
      /^the mask mask.0 of com.microsoft.Attention has shape \[4\], not a MultiHeadAttention's$/,
    );
  }
  assertEquals(skipped.length, LAYERS);
});
