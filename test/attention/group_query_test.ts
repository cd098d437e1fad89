/**
 * com.microsoft.GroupQueryAttention with a compressed cache: random options at random ranks, a prompt and then token by token, equal ONNX
 * Runtime's own operator on the dense weights, for rows of different lengths and for caches in buffers of the largest length too.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import { makesKeys } from "../../src/attention/form.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { withFields } from "../../src/onnx/codec.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { groupQueryModel, type GroupQueryOptions, LAYERS, randomOptions } from "../support/group_query.ts";
import { type Call, feedsOf, firstPast, live, PLAIN } from "../support/group_query_calls.ts";
import { nextPast } from "../support/fused_caches.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { TestSession } from "../support/session.ts";

/** A prompt, padded on the right for shorter rows, then one token a call, or for one row several. */
function randomCalls(random: Random, batch: number, once: boolean): Call[] {
  const prompt = integer(random, 1, 5);
  let lengths = Array.from({ length: batch }, (_, row) => row === 0 ? prompt : integer(random, 1, prompt));
  const calls: Call[] = [{ tokens: prompt, lengths, total: prompt }];
  for (let step = 0; step < (once ? 0 : 3); step++) {
    const tokens = batch === 1 ? integer(random, 1, 2) : 1;
    lengths = lengths.map((length) => length + tokens);
    // Where a mask has holes, the total is more than any row has.
    calls.push({ tokens, lengths, total: Math.max(...lengths) + integer(random, 0, 1) });
  }
  return calls;
}

function operatorsOf(model: OnnxModel): number {
  return model.proto.graph!.node.filter(({ opType }) => opType === "GroupQueryAttention").length;
}

async function checkRandom(
  random: Random,
  cache: "compressed" | "latent",
  given: Partial<GroupQueryOptions> = {},
): Promise<void> {
  const half = given.half === true;
  const options = { ...randomOptions(random, half), ...given };
  const model = groupQueryModel(options, random);
  const { blocks } = findAttention(model);
  assertEquals(blocks.length, LAYERS);
  if (options.before !== undefined) {
    const { rotated } = options;
    assertEquals(
      blocks.map(({ keyRotation }) => keyRotation?.coefficients),
      [rotated, rotated],
      JSON.stringify(options),
    );
  }
  const chosen = blocks.filter(({ layer }) => layer === 0 || random() < 0.7);
  const forms = new Map(chosen.map((block): [number, BlockForm] => {
    const form = randomForm(block, random, cache);
    // Heads that are rotated and packed then can't become more: that is refused.
    const asStored = options.packed && options.before !== undefined;
    return [block.layer, asStored ? { ...form, keyValueHeads: block.keyValueHeads } : form];
  }));
  const made = withRandomFactors(model, forms, random);
  const { rewritten, ranks, weights } = made;
  const plain = [...forms.values()].filter((form) =>
    form.queryKey === "reduced" || form.valueOutput === "reduced" || makesKeys(form)
  );
  assertEquals(operatorsOf(rewritten), LAYERS - plain.length);
  await using dense = await TestSession.load(rewriteDense(model, weights));
  // Factors as in files: ONNX Runtime 1.30 crashes as it optimises float16 graphs that take them as inputs.
  await using session = await TestSession.load(half ? closedModel(model, forms, made) : rewritten);
  const feeds = half ? {} : made.feeds;
  const batch = integer(random, 1, 2);
  let pasts = [dense, session].map((each) => firstPast(each, options, { batch, ranks, random }));
  for (const call of randomCalls(random, batch, options.past === "none")) {
    const fed = feedsOf(options, call, random);
    const expected = await dense.run({}, { ...pasts[0], ...fed });
    const actual = await session.run({}, { ...feeds, ...pasts[1], ...fed });
    pasts = [expected, actual].map(nextPast);
    const what = `${JSON.stringify({ ...options, ...call })} ${structureKey(forms)}`;
    const wanted = live(expected["y"]!, call);
    // Where a sink takes nearly all, half precision leaves little of what is left.
    const atol = half ? 2e-2 * largestValue(wanted) + 1e-3 : 1e-4 * largestValue(wanted);
    assertNear(live(actual["y"]!, call), wanted, { atol, rtol: 0, what });
    const lengths = pasts.map((past) => Object.values(past).map(({ shape }) => shape[2]));
    assertEquals(lengths[1], lengths[0], what);
  }
}

for (const cache of ["compressed", "latent"] as const) {
  Deno.test(`GroupQueryAttention: random options at random ranks through a ${cache} cache compute what the operator does`, async () => {
    const random = seededRandom(`group query, ${cache}`);
    for (let trial = 0; trial < 60; trial++) await checkRandom(random, cache);
  });

  Deno.test(`GroupQueryAttention in half precision through a ${cache} cache: random options at random ranks compute what the operator does`, async () => {
    const random = seededRandom(`group query, half, ${cache}`);
    for (let trial = 0; trial < 12; trial++) await checkRandom(random, cache, { half: true });
  });
}

Deno.test("GroupQueryAttention of grouped heads that come packed with their biases: each head keeps its own", async () => {
  const random = seededRandom("group query, packed");
  const given = { groups: 2, packed: true, normed: undefined, biased: true, past: "grown" } as const;
  for (let trial = 0; trial < 20; trial++) await checkRandom(random, trial % 2 === 0 ? "compressed" : "latent", given);
});

for (const before of ["com.microsoft", "", "written"] as const) {
  const by = before === "written" ? "plain operators" : `${before || "the standard"}'s RotaryEmbedding`;
  Deno.test(`GroupQueryAttention behind ${by}: rotated keys are made from z`, async () => {
    const random = seededRandom(`group query, rotated before, ${before}`);
    for (let trial = 0; trial < 20; trial++) {
      await checkRandom(random, "latent", { before, rotated: 16, positioned: true, fed: false });
    }
  });
}

for (const normed of ["LayerNormalization", "SimplifiedLayerNormalization"] as const) {
  Deno.test(`GroupQueryAttention that rotates keys behind ${normed}: they are made from z`, async () => {
    const random = seededRandom(`group query, ${normed}`);
    for (let trial = 0; trial < 25; trial++) {
      await checkRandom(random, "latent", { normed, packed: false, before: undefined, rotated: 16, fed: false });
    }
  });
}

Deno.test("GroupQueryAttention: what keeps queries, keys and values at full size is told", () => {
  const reasons = (change: Partial<GroupQueryOptions>): (string | undefined)[] => {
    const random = seededRandom("group query, reasons");
    const [block] = findAttention(groupQueryModel({ ...PLAIN, ...change }, random)).blocks;
    return [block!.queryKeyExpandedBecause, block!.valueOutputExpandedBecause];
  };
  assertMatch(reasons({})[0]!, /^com.microsoft.GroupQueryAttention rotates keys inside, at full size$/);
  assertEquals(reasons({})[1], undefined);
  assertEquals(reasons({ rotated: 0 }), [undefined, undefined]);
  assertEquals(reasons({ rotated: 0, biased: true }), [undefined, undefined]);
  assertMatch(reasons({ rotated: 0, biased: true, softcap: 1 })[0]!, /^softcap bends the scores, so the key bias/);
  assertMatch(reasons({ rotated: 0, biased: true, sink: "heads" })[0]!, /^head_sink sink.0 bends the scores/);
  assertMatch(reasons({ biased: true, sink: "smooth" })[1]!, /^smooth_softmax changes its row sums, so the value bias/);
  assertEquals(reasons({ rotated: 0, sink: "heads" }), [undefined, undefined]);
  for (const part of reasons({ window: 0 })) assertMatch(part!, /has a window of no positions$/);
});

Deno.test("GroupQueryAttention: forms of it that aren't written as plain operators keep the operator", () => {
  const model = groupQueryModel({ ...PLAIN, window: 2 }, seededRandom("group query, kept"));
  const changed = (change: Parameters<typeof withFields<OnnxModel["proto"]["graph"] & object>>[1]): OnnxModel => ({
    ...model,
    proto: withFields(model.proto, { graph: withFields(model.proto.graph!, change) }),
  });
  const { attribute } = makeNode("Any", [], [], { attributes: { sliding_window_cache: 1n } });
  const sliding = changed({
    node: model.proto.graph!.node.map((node) =>
      node.domain === "" ? node : withFields(node, { attribute: [...node.attribute, ...attribute] })
    ),
  });
  const [slid] = findAttention(sliding).blocks;
  for (const reason of [slid!.valueOutputExpandedBecause, slid!.noLatentCacheBecause]) {
    assertMatch(reason!, /keeps its cache as a sliding window$/);
  }
  const normed = changed({
    node: model.proto.graph!.node.map((node) =>
      node.domain === "" ? node : withFields(node, { input: [...node.input, "", "", "", "", "", "sin", "sin"] })
    ),
  });
  assertMatch(findAttention(normed).blocks[0]!.valueOutputExpandedBecause!, /norms queries and keys inside$/);
});
