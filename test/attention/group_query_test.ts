/**
 * com.microsoft.GroupQueryAttention with a compressed cache: random options at random ranks, a prompt and then token by token, equal ONNX
 * Runtime's own operator on the dense weights, for rows of different lengths and for caches in buffers of the largest length too.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { withFields } from "../../src/onnx/codec.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { D, groupQueryModel, type GroupQueryOptions, H, LAYERS, randomOptions, TABLE } from "../support/group_query.ts";
import { nextPast } from "../support/fused_caches.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const BUFFER = 12;

function uniform(random: Random, ...shape: number[]): Numbers {
  const length = shape.reduce((a, b) => a * b, 1);
  return { shape, data: Float32Array.from({ length }, () => random() - 0.5) };
}

/** A past without tokens, in a buffer of arbitrary numbers where the model is told to have one. */
function firstPast(
  session: TestSession,
  { past }: GroupQueryOptions,
  of: { readonly batch: number; readonly ranks: Readonly<Record<string, number>>; readonly random: Random },
): Record<string, Numbers> {
  const inputs = Object.entries(session.inputShapes).filter(([name]) => name.startsWith("past_key_values."));
  return Object.fromEntries(inputs.map(([name, [, heads, , width]]) => {
    const size = typeof width === "number" ? width : of.ranks[width!]!;
    return [name, uniform(of.random, of.batch, Number(heads), past === "buffer" ? BUFFER : 0, size)];
  }));
}

/** One call: how many tokens each row of x has, for each row its positions after the call, and what the operator is told of them. */
interface Call {
  readonly tokens: number;
  readonly lengths: readonly number[];
  readonly total: number;
}

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

function feedsOf(
  options: GroupQueryOptions,
  { tokens, lengths, total }: Call,
  random: Random,
): Record<string, Numbers> {
  const batch = lengths.length;
  const { bias, positioned } = options;
  const positions = Float32Array.from({ length: batch * tokens }, () => integer(random, 0, TABLE - 6));
  return {
    x: uniform(random, batch, tokens, D),
    seqlens: { shape: [batch], data: lengths.map((length) => length - 1) },
    total: { shape: [], data: [total] },
    ...(positioned ? { positions: { shape: [batch, tokens], data: positions } } : {}),
    ...(bias ? { bias: uniform(random, bias[0] ? batch : 1, bias[1] ? H : 1, tokens, total) } : {}),
  };
}

/** Numbers of the tokens that a row has, of those of all rows. */
function live({ data }: Numbers, { tokens, lengths }: Call): number[] {
  return Array.from(data).filter((_, i) => {
    const [row, token] = [Math.floor(i / (tokens * D)), Math.floor(i / D) % tokens];
    return token < lengths[row]!;
  });
}

function operatorsOf(model: OnnxModel): number {
  return model.proto.graph!.node.filter(({ opType }) => opType === "GroupQueryAttention").length;
}

async function checkRandom(random: Random, half: boolean, given: Partial<GroupQueryOptions> = {}): Promise<void> {
  const options = { ...randomOptions(random, half), ...given };
  const model = groupQueryModel(options, random);
  const { blocks } = findAttention(model);
  assertEquals(blocks.length, LAYERS);
  const chosen = blocks.filter(({ layer }) => layer === 0 || random() < 0.7);
  const forms = new Map(
    chosen.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, "compressed")]),
  );
  const { rewritten, feeds, ranks, weights } = withRandomFactors(model, forms, random);
  const reduced = [...forms.values()].filter((form) => form.queryKey === "reduced" || form.valueOutput === "reduced");
  assertEquals(operatorsOf(rewritten), LAYERS - reduced.length);
  await using dense = await TestSession.load(rewriteDense(model, weights));
  await using session = await TestSession.load(rewritten);
  const batch = integer(random, 1, 2);
  let pasts = [dense, session].map((each) => firstPast(each, options, { batch, ranks, random }));
  for (const call of randomCalls(random, batch, options.past === "none")) {
    const fed = feedsOf(options, call, random);
    const expected = await dense.run({}, { ...pasts[0], ...fed });
    const actual = await session.run({}, { ...feeds, ...pasts[1], ...fed });
    pasts = [expected, actual].map(nextPast);
    const what = `${JSON.stringify({ ...options, ...call })} ${structureKey(forms)}`;
    const wanted = live(expected["y"]!, call);
    assertNear(live(actual["y"]!, call), wanted, { atol: (half ? 2e-2 : 1e-4) * largestValue(wanted), rtol: 0, what });
    const lengths = pasts.map((past) => Object.values(past).map(({ shape }) => shape[2]));
    assertEquals(lengths[1], lengths[0], what);
  }
}

Deno.test("GroupQueryAttention: random options at random ranks compute what the operator does", async () => {
  const random = seededRandom("group query");
  for (let trial = 0; trial < 60; trial++) await checkRandom(random, false);
});

Deno.test("GroupQueryAttention of grouped heads that come packed with their biases: each head keeps its own", async () => {
  const random = seededRandom("group query, packed");
  const given = { groups: 2, packed: true, biased: true, past: "grown" } as const;
  for (let trial = 0; trial < 20; trial++) await checkRandom(random, false, given);
});

Deno.test("GroupQueryAttention in half precision: random options at random ranks compute what the operator does", async () => {
  const random = seededRandom("group query, half");
  for (let trial = 0; trial < 12; trial++) await checkRandom(random, true);
});

const PLAIN: GroupQueryOptions = {
  groups: 2,
  headSize: 16,
  half: false,
  packed: false,
  biased: false,
  multiplied: false,
  rotated: 16,
  interleaved: false,
  positioned: false,
  bias: undefined,
  sink: undefined,
  causal: true,
  window: undefined,
  softcap: 0,
  scale: undefined,
  past: "grown",
};

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
  assertMatch(findAttention(sliding).blocks[0]!.valueOutputExpandedBecause!, /keeps its cache as a sliding window$/);
  const normed = changed({
    node: model.proto.graph!.node.map((node) =>
      node.domain === "" ? node : withFields(node, { input: [...node.input, "", "", "", "", "", "sin", "sin"] })
    ),
  });
  assertMatch(findAttention(normed).blocks[0]!.valueOutputExpandedBecause!, /norms queries and keys inside$/);
});
