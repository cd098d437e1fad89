/**
 * The standard's Attention of opset 23 and 24: random options at random ranks, through its cache, with counted keys or with neither, equal
 * ONNX Runtime's own operator on the dense weights.
 */
import { assertEquals, assertMatch, assertThrows } from "@std/assert/mod.js";
import { chooseForm, findAttention, rewriteDense, rewriteFactored, structureKey } from "../../src/attention/mod.ts";
import type { AttentionBlock, BlockForm } from "../../src/attention/types.ts";
import { TuckerdError } from "../../src/errors.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { emptyCache, nextPast } from "../support/fused_caches.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import {
  attentionModel,
  type AttentionOptions,
  D,
  H,
  LAYERS,
  randomOptions,
  SIZE,
} from "../support/standard_attention.ts";

const [BATCH, TRIALS, HALF_TRIALS] = [2, 200, 20];

/** Inputs of a call with `tokens` new positions behind `before`. */
function feedsOf(
  options: AttentionOptions,
  random: Random,
  [before, tokens, keys]: readonly [number, number, number],
): Record<string, Numbers> {
  const total = before + keys;
  const uniform = (...shape: number[]): Numbers => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5),
  });
  // Tokens that see no key have no value's bias either, which small values carry into the output's.
  const blind = !options.biased;
  const lead = options.masked.map((size, i) => size === 1 ? 1 : i === options.masked.length - 1 ? H : BATCH);
  const shape = [...lead, tokens, total];
  const hidden = [-Infinity, options.half ? -65504 : -3.4028234663852886e38][integer(random, 0, 1)]!; // what torch and others put
  const mask = (): Numbers => {
    const seen = Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => {
      const [query, key] = [before + Math.floor(i / total) % tokens, i % total];
      return (!blind && (key === query || key === 0)) || random() < 0.5 ? 1 : 0;
    });
    if (options.mask === "bool") return { shape, data: seen };
    return { shape, data: Array.from(uniform(...shape).data, (score, i) => seen[i] === 1 ? score : hidden) };
  };
  // Causal rows are aligned with the last key that counts, so that all of it must be there.
  const least = blind ? 0 : options.causal ? tokens : 1;
  return {
    x: uniform(BATCH, tokens, D),
    ...(options.rotated
      ? {
        positions: {
          shape: [BATCH, tokens],
          data: Array.from({ length: BATCH * tokens }, (_, i) => before + i % tokens + Math.floor(i / tokens)),
        },
      }
      : {}),
    ...(options.cross ? { e: uniform(BATCH, keys, D) } : {}),
    ...Object.fromEntries(
      (options.mask === undefined ? [] : options.own ? [0, 1] : [0]).map((layer) => [`mask.${layer}`, mask()]),
    ),
    ...(!options.counted ? {} : {
      lengths: { shape: [BATCH], data: Array.from({ length: BATCH }, () => integer(random, least, total)) },
    }),
  };
}

const PLAIN: AttentionOptions = {
  opset: 24,
  groups: 2,
  half: false,
  precise: false,
  rotated: false,
  repeated: false,
  headsFirst: false,
  biased: false,
  keys: "cached",
  counted: false,
  cross: false,
  causal: true,
  mask: undefined,
  own: false,
  masked: [],
  softcap: 0,
  scale: undefined,
  gives: undefined,
};

function checkReasons(
  options: AttentionOptions,
  { queryKeyExpandedBecause, valueOutputExpandedBecause, noLatentCacheBecause }: AttentionBlock,
): void {
  if (options.keys === "cached" && options.cross && options.causal && options.gives === undefined) {
    assertMatch(noLatentCacheBecause!, /^Attention is causal, and has other new keys behind its past than tokens$/);
  }
  if (options.gives !== undefined) {
    assertMatch(queryKeyExpandedBecause!, /^Attention gives its scores out$/);
    assertMatch(valueOutputExpandedBecause!, /^Attention gives its scores out$/);
  } else {
    if (options.rotated) assertMatch(queryKeyExpandedBecause!, /^query: RotaryEmbedding .* changes it$/);
    else if (options.softcap > 0 && options.biased) assertMatch(queryKeyExpandedBecause!, /^softcap bends the scores/);
    else assertEquals(queryKeyExpandedBecause, undefined);
    assertEquals(valueOutputExpandedBecause, undefined);
  }
}

async function checkRandom(random: Random, half: boolean): Promise<void> {
  const options = randomOptions(random, half);
  const model = attentionModel(options, random);
  const { blocks } = findAttention(model);
  assertEquals(blocks.length, LAYERS);
  for (const block of blocks) checkReasons(options, block);
  const chosen = blocks.filter(({ layer }) => layer === 0 || random() < 0.7);
  const forms = new Map(
    chosen.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, "latent")]),
  );
  const made = withRandomFactors(model, forms, random);
  const { rewritten, ranks, weights } = made;
  await using dense = await TestSession.load(rewriteDense(model, weights));
  // Factors as in files: ONNX Runtime 1.30 crashes as it optimises float16 graphs that take them as inputs.
  await using session = await TestSession.load(half ? closedModel(model, forms, made) : rewritten);
  const feeds = half ? {} : made.feeds;
  let pasts = [dense, session].map((each): Record<string, Numbers> => {
    const past = Object.entries(emptyCache(each, ranks));
    return Object.fromEntries(past.map(([name, { shape, data }]) => [name, { shape: shape.with(0, BATCH), data }]));
  });
  const keeps = options.keys === "cached" || options.keys === "outside";
  const calls = keeps ? [integer(random, 1, 4), 1, 2] : [integer(random, 2, 6)];
  let before = 0;
  for (const tokens of calls) {
    // Where more tokens than keys end with the last key, the first see none.
    const least = options.biased && options.counted && options.causal ? tokens : 1;
    const keys = options.cross ? integer(random, least, 6) : tokens;
    const fed = feedsOf(options, random, [before, tokens, keys]);
    const expected = await dense.run({}, { ...pasts[0], ...fed });
    const actual = await session.run({}, { ...feeds, ...pasts[1], ...fed });
    pasts = [expected, actual].map(nextPast);
    before += keys;
    for (const { name, type } of rewritten.proto.graph!.output.filter(({ name }) => name.startsWith("present."))) {
      const heads = type!.tensorType!.shape!.dim[1]!.value;
      assertEquals(heads.case === "dimValue" && Number(heads.value), actual[name]!.shape[1], name);
    }
    const what = `${JSON.stringify({ ...options, tokens })} ${structureKey(forms)}`;
    for (const [name, { data }] of Object.entries(expected).filter(([name]) => !name.startsWith("present."))) {
      // Masked scores are given out as the lowest numbers there are.
      const [given, wanted] = [actual[name]!.data, data].map((all) => Array.from(all, (each) => Math.max(each, -1e4)));
      const atol = (half ? 2e-2 : 1e-4) * largestValue(wanted!.filter((each) => each > -1e4));
      assertNear(given!, wanted!, { atol, rtol: 0, what: `${name}, ${what}` });
    }
  }
}

Deno.test("the standard's Attention: random options at random ranks compute what the operator does", async () => {
  const random = seededRandom("standard attention");
  for (let trial = 0; trial < TRIALS; trial++) await checkRandom(random, false);
});

Deno.test("the standard's Attention in half precision: random options at random ranks compute what the operator does", async () => {
  const random = seededRandom("standard attention, half");
  for (let trial = 0; trial < HALF_TRIALS; trial++) await checkRandom(random, true);
});

Deno.test("grouped heads that are joined behind a cache of the graph's own need stack rank 4", () => {
  const model = attentionModel({ ...PLAIN, keys: "outside" }, seededRandom("joined behind a cache"));
  const [block] = findAttention(model).blocks;
  const form = chooseForm(block!, "tucker4", { r3: 2 });
  assertThrows(
    () => rewriteFactored(model, new Map([[0, form]]), { factors: "inputs" }),
    TuckerdError,
    "the key heads of context.0 are joined behind a cache that the graph keeps: keep the stack rank at 4",
  );
});

Deno.test("keys that TensorScatter puts into a buffer are left as they are, and the reason names it", () => {
  const options = { ...PLAIN, keys: "all", counted: true, headsFirst: true } as const;
  const { proto, ...rest } = attentionModel(options, seededRandom("tensor scatter"));
  const graph = proto.graph!;
  const node = graph.node.flatMap((each) => {
    if (each.opType !== "Attention") return [each];
    const [query, key, ...others] = each.input as [string, string, ...string[]];
    const scattered = makeNode("TensorScatter", ["buffer", key, "places"], [`${key}.all`], {
      attributes: { axis: -2n },
    });
    return [scattered, withFields(each, { input: [query, `${key}.all`, ...others] })];
  });
  const input = [
    ...graph.input,
    tensorInfo("buffer", DataType.FLOAT, ["batch", PLAIN.groups, 12, SIZE]),
    tensorInfo("places", DataType.INT64, ["batch"]),
  ];
  const { blocks, skipped } = findAttention({
    ...rest,
    proto: withFields(proto, { graph: withFields(graph, { node, input }) }),
  });
  assertEquals(blocks, []);
  assertEquals(skipped.length, LAYERS);
  for (const { reason } of skipped) {
    assertMatch(reason, /^the key can't be followed: it comes from TensorScatter \(k.\d.first.all\)/);
  }
});

Deno.test("query heads that share key heads with others than their neighbours are left as they are, and the reason shows how", () => {
  const { proto, ...rest } = attentionModel(
    { ...PLAIN, keys: "all", headsFirst: true, repeated: true },
    seededRandom("tiled heads"),
  );
  const graph = proto.graph!;
  const tiled = new Map([["apart", [0, 1, PLAIN.groups, -1, SIZE]], ["repeats", [1, 2, 1, 1, 1]]]);
  const initializer = graph.initializer.map((tensor) => {
    const sizes = tiled.get(tensor.name);
    return sizes === undefined ? tensor : int64Tensor(tensor.name, sizes);
  });
  const { blocks, skipped } = findAttention({
    ...rest,
    proto: withFields(proto, { graph: withFields(graph, { initializer }) }),
  });
  assertEquals(blocks, []);
  assertEquals(
    skipped.map(({ reason }) => reason),
    new Array(LAYERS).fill(
      "its 4 query heads don't share its 2 key heads in groups of neighbours: the key heads stand in the order 0, 1, 0, 1",
    ),
  );
});
