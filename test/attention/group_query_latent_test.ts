/** com.microsoft.GroupQueryAttention with z in its cache: what is kept beside it, and for which graphs that is the same. */
import { assertEquals } from "@std/assert/mod.js";
import { findAttention, rewriteDense, rewriteFactored } from "../../src/attention/mod.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factoredForm } from "../support/factored.ts";
import { nextPast } from "../support/fused_caches.ts";
import { groupQueryModel, type GroupQueryOptions } from "../support/group_query.ts";
import { feedsOf, firstPast, live, PLAIN } from "../support/group_query_calls.ts";
import { integer, seededRandom } from "../support/random.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { seeded } from "../support/random_tucker.ts";
import { type Numbers, TestSession } from "../support/session.ts";

/** Numbers of the keys' caches, with z wherever it can be. */
function widthsOf(model: OnnxModel, layers: readonly number[]): string[] {
  const blocks = findAttention(model).blocks.filter(({ layer }) => layers.includes(layer));
  const forms = new Map(blocks.map((block) => [block.layer, factoredForm(block, 4, "latent")]));
  const { model: rewritten } = rewriteFactored(model, forms, { factors: "inputs" });
  return rewritten.proto.graph!.output.filter(({ name }) => name.endsWith(".key")).map(({ type }) =>
    String(type!.tensorType!.shape!.dim.at(-1)!.value.value)
  );
}

Deno.test("GroupQueryAttention keeps z alone where it counts positions, and else what tokens met once for all layers", () => {
  const widths = (change: Partial<GroupQueryOptions>, layers = [0, 1]): string[] =>
    widthsOf(groupQueryModel({ ...PLAIN, ...change }, seededRandom("group query, widths")), layers);
  const [first, second] = ["layer0.r1", "layer1.r1"] as const;
  assertEquals(widths({ rotated: 0 }), [first, second]);
  assertEquals(widths({}), [first, second]);
  assertEquals(widths({ positioned: true }), [`${first} + 16`, second]);
  assertEquals(widths({ fed: true, headSize: 32 }), [`${first} + 16`, second]);
  assertEquals(widths({ fed: true, positioned: true }, [1]), ["16", `${second} + 16`]);
  for (const before of ["com.microsoft", "", "written"] as const) {
    assertEquals(widths({ before, positioned: true }), [`${first} + 16`, second], before);
    assertEquals(widths({ before, positioned: true, packed: true }, [1]), ["16", `${second} + 16`], before);
  }
});

Deno.test("GroupQueryAttention: layers that are told other lengths keep what tokens met in their own places", () => {
  for (const change of [{ positioned: true }, { positioned: true, before: "com.microsoft" }] as const) {
    const model = groupQueryModel({ ...PLAIN, ...change }, seededRandom("group query, lengths"));
    const graph = model.proto.graph!;
    const [, last] = graph.node.filter(({ opType }) => opType === "GroupQueryAttention");
    last!.input[5] = "other.seqlens";
    graph.input.push(tensorInfo("other.seqlens", DataType.INT32, ["batch"]));
    assertEquals(widthsOf(model, [0, 1]), ["layer0.r1 + 16", "layer1.r1 + 16"]);
  }
});

Deno.test("GroupQueryAttention: a graph without a past fills the cache of z that a graph for later calls reads", async () => {
  const before = "com.microsoft";
  for (
    const change of [{}, { positioned: true }, { fed: true }, { rotated: 0 }, { positioned: true, before }] as const
  ) {
    const random = seededRandom(`group query, two graphs, ${JSON.stringify(change)}`);
    const options: GroupQueryOptions = { ...PLAIN, ...change, biased: true };
    const seed = integer(random, 1, 1e6);
    const [prompt, later] = (["none", "grown"] as const).map((past) =>
      groupQueryModel({ ...options, past }, seeded(seed))
    ) as [OnnxModel, OnnxModel];
    const forms = new Map(findAttention(later).blocks.map((block) => [block.layer, factoredForm(block, 4, "latent")]));
    const { rewritten, feeds, ranks, weights } = withRandomFactors(later, forms, random);
    await using dense = await TestSession.load(rewriteDense(later, weights));
    await using first = await TestSession.load(rewriteFactored(prompt, forms, { factors: "inputs" }).model);
    await using then = await TestSession.load(rewritten);
    const calls = [{ tokens: 4, lengths: [4, 2], total: 4 }, { tokens: 1, lengths: [5, 3], total: 5 }];
    let expected = firstPast(dense, options, { batch: 2, ranks, random });
    let actual: Record<string, Numbers> = {};
    for (const [i, call] of calls.entries()) {
      const fed = feedsOf(options, call, random);
      const wanted = await dense.run({}, { ...expected, ...fed });
      const found = await (i === 0 ? first : then).run({}, { ...feeds, ...actual, ...fed });
      [expected, actual] = [wanted, found].map(nextPast) as [typeof expected, typeof actual];
      const numbers = live(wanted["y"]!, call);
      const what = `${JSON.stringify(change)}, call ${i}`;
      assertNear(live(found["y"]!, call), numbers, { atol: 1e-4 * largestValue(numbers), rtol: 0, what });
    }
  }
});

Deno.test("GroupQueryAttention: keys that are normed before it are made from z with keys and values of one subspace", async () => {
  const model = await loadModel(new URL("../testdata/fused/qwen3-16/group_query.onnx", import.meta.url).pathname);
  const [block] = findAttention(model).blocks;
  assertEquals(block!.keyRotation, { coefficients: 0, group: "", normed: "by head" });
  assertEquals(factoredForm(block!, 4, "latent").latent, ["key", "value"]);
});

Deno.test("GroupQueryAttention: keys that are rotated before the operator and in it stay whole, for a reason that is told", () => {
  const { proto, ...rest } = groupQueryModel(
    { ...PLAIN, before: "written", positioned: true },
    seededRandom("turned twice"),
  );
  const graph = proto.graph!;
  const node = graph.node.map((each) =>
    each.opType !== "GroupQueryAttention" ? each : withFields(each, {
      input: [...each.input, ...new Array<string>(7 - each.input.length).fill(""), "tables", "tables"],
      attribute: each.attribute.map((entry) => entry.name === "do_rotary" ? withFields(entry, { i: 1n }) : entry),
    })
  );
  const initializer = [...graph.initializer, floatTensor("tables", [8, 8], new Float32Array(64))];
  const { blocks } = findAttention({
    ...rest,
    proto: withFields(proto, { graph: withFields(graph, { node, initializer }) }),
  });
  assertEquals(
    blocks.map(({ noLatentKeysBecause }) => noLatentKeysBecause),
    blocks.map(() => "its keys are rotated before the operator and in it"),
  );
});
