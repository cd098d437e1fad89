/**
 * Keys that an operator RotaryEmbedding rotates, made again from z: random options of ONNX Runtime's operators, both domains, give what they
 * give on dense weights through the model's own cache, call by call; and what can't be followed keeps its keys, for a true reason.
 */
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert/mod.js";
import { findAttention, rewriteDense, rewriteFactored, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { withFields } from "../../src/onnx/codec.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factoredForm } from "../support/factored.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { randomInputs, runCalls } from "../support/rotary_calls.ts";
import { type RotaryDecoder, rotaryDecoder } from "../support/rotary_decoder.ts";
import type { RotaryOperator } from "../support/rotations.ts";
import { TestSession } from "../support/session.ts";

function randomOperator(random: Random): RotaryOperator {
  const pick = <T>(...values: readonly T[]): T => values[integer(random, 0, values.length - 1)]!;
  const domain = pick("com.microsoft", "");
  return {
    domain,
    positions: domain === "" ? pick("rows", "given") : pick("rows", "first"),
    ...(pick(true, false) ? { joined: true } : {}),
    ...(pick(true, false) ? { ownTables: true } : {}),
  };
}

function randomDecoder(random: Random, half: boolean): RotaryDecoder {
  const chance = (): boolean => random() < 0.4;
  const operator = randomOperator(random);
  const norm = !operator.joined && chance();
  return {
    thetas: chance() ? [10000, 500, 10000] : [10000, 10000, 10000],
    rotated: [4, 6, 8][integer(random, 0, 2)]!,
    operator,
    ...(norm ? { norm: chance() ? "plain" : "SimplifiedLayerNormalization" } : chance() ? { bias: true } : {}),
    ...(chance() ? { interleaved: true } : {}),
    ...(chance() ? { dynamic: true } : {}),
    ...(chance() ? { scaledKeys: true } : {}),
    ...(half ? { half: true } : {}),
  };
}

async function checkRandom(random: Random, half = false): Promise<void> {
  const decoder = randomDecoder(random, half);
  const model = rotaryDecoder(decoder);
  const { blocks } = findAttention(model);
  const told = JSON.stringify(decoder);
  const groups = blocks.map(({ keyRotation }) => keyRotation?.group);
  assertEquals(blocks.map(({ keyRotation }) => keyRotation?.coefficients), blocks.map(() => decoder.rotated), told);
  assertEquals(
    groups.map((group) => groups.indexOf(group)),
    decoder.thetas.map((t) => decoder.thetas.indexOf(t)),
    told,
  );
  const chosen = blocks.filter(({ layer }) => layer === 1 || random() < 0.7);
  const forms = new Map(
    chosen.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, "latent")]),
  );
  const made = withRandomFactors(model, forms, random);
  await using dense = await TestSession.load(rewriteDense(model, made.weights));
  // Factors as in files: ONNX Runtime 1.30 crashes as it optimises float16 graphs that take them as inputs.
  await using session = await TestSession.load(half ? closedModel(model, forms, made) : made.rewritten);
  const inputs = randomInputs(random);
  const expected = await runCalls(dense, inputs);
  const actual = await runCalls(session, inputs, { feeds: half ? {} : made.feeds, sizes: made.ranks });
  for (const [i, { y }] of actual.entries()) {
    const what = `${told}, call ${i} of ${inputs.pieces}, ${structureKey(forms)}`;
    assertNear(y!.data, expected[i]!["y"]!.data, { atol: (half ? 1e-2 : 2e-5) * largestValue(y!.data), rtol: 0, what });
  }
}

Deno.test("RotaryEmbedding: keys made from z at random ranks are those that the operator rotates, call by call", async () => {
  const random = seededRandom("rotary embedding");
  for (let trial = 0; trial < 60; trial++) await checkRandom(random);
});

Deno.test("RotaryEmbedding in half precision: keys made from z at random ranks are those that the operator rotates", async () => {
  const random = seededRandom("rotary embedding, half");
  for (let trial = 0; trial < 10; trial++) await checkRandom(random, true);
});

const llama: RotaryDecoder = {
  thetas: [10000, 10000],
  rotated: 8,
  operator: { domain: "com.microsoft", positions: "rows" },
};

/** The model with other operators RotaryEmbedding. */
function changed(
  model: OnnxModel,
  change: (node: ReturnType<typeof makeNode>) => Partial<ReturnType<typeof makeNode>>,
): OnnxModel {
  const graph = model.proto.graph!;
  const node = graph.node.map((each) => each.opType === "RotaryEmbedding" ? withFields(each, change(each)) : each);
  return { ...model, proto: withFields(model.proto, { graph: withFields(graph, { node }) }) };
}

Deno.test("RotaryEmbedding: tables too large to compare are those of a name", () => {
  const large = (names: readonly string[]): OnnxModel => {
    const model = rotaryDecoder(llama);
    const graph = model.proto.graph!;
    const shape = [2 ** 18 + 1, 4];
    const tables = names.flatMap((name) =>
      ["cos", "sin"].map((of) => floatTensor(`${of}.${name}`, shape, new Float32Array(shape[0]! * shape[1]!)))
    );
    const all = withFields(graph, { initializer: [...graph.initializer, ...tables] });
    let count = 0;
    // Query and key of a layer follow each other.
    return changed({ ...model, proto: withFields(model.proto, { graph: all }) }, ({ input: [x, positions] }) => {
      const name = names[Math.floor(count++ / 2) % names.length];
      return { input: [x!, positions!, `cos.${name}`, `sin.${name}`] };
    });
  };
  const groups = (model: OnnxModel): (string | undefined)[] =>
    findAttention(model).blocks.map(({ keyRotation }) => keyRotation?.group);
  const [same, other] = groups(large(["a"]));
  assert(same !== undefined && same !== "");
  assertEquals(same, other);
  const [first, second] = groups(large(["a", "b"]));
  assert(first !== undefined && second !== undefined);
  assertNotEquals(first, second);
});

Deno.test("RotaryEmbedding: layers that take rows of the same tables by other positions keep their own", () => {
  for (const positions of ["rows", "first"] as const) {
    const model = rotaryDecoder({ ...llama, operator: { domain: "com.microsoft", positions } });
    let count = 0;
    const apart = changed(model, ({ input: [x, rows, ...tables] }) => ({
      input: [x!, count++ < 2 ? rows! : "later", ...tables],
    }));
    const graph = apart.proto.graph!;
    graph.node.unshift(makeNode("Add", [positions === "rows" ? "positions" : "first", "one"], ["later"]));
    graph.initializer.push(int64Tensor("one", [1]));
    const [first, second] = findAttention(apart).blocks.map(({ keyRotation }) => keyRotation);
    assertEquals([first!.coefficients, second!.coefficients], [8, 8]);
    assertNotEquals(first!.group, second!.group);
  }
});

Deno.test("RotaryEmbedding: layers rotated alike by one position keep what a token met once", () => {
  for (
    const operator of [llama.operator!, { domain: "", positions: "given" }, {
      domain: "com.microsoft",
      positions: "first",
    }] as const
  ) {
    const model = rotaryDecoder({ ...llama, operator });
    const forms = new Map(findAttention(model).blocks.map((block) => [block.layer, factoredForm(block, 4, "latent")]));
    const { proto } = rewriteFactored(model, forms, { factors: "inputs" }).model;
    const widths = proto.graph!.input.filter(({ name }) => /^past.*key$/.test(name))
      .map(({ type }) => String(type!.tensorType!.shape!.dim.at(-1)!.value.value));
    assertEquals(widths, ["layer0.r1 + 8", "layer1.r1"]);
    // Of both layers the queries' rotations are left, and none of keys.
    assertEquals(proto.graph!.node.filter(({ opType }) => opType === "RotaryEmbedding").length, 2);
  }
});

Deno.test("RotaryEmbedding: what can't be followed is told", () => {
  const reason = (model: OnnxModel): string => {
    const [block] = findAttention(model).blocks;
    assertEquals(block!.keyRotation, undefined);
    return block!.noLatentKeysBecause!;
  };
  const attributed = (attributes: Record<string, bigint | number>): OnnxModel =>
    changed(rotaryDecoder(llama), ({ attribute }) => ({
      attribute: [...attribute, ...makeNode("Any", [], [], { attributes }).attribute],
    }));
  assertMatch(reason(attributed({ scale: 0.5 })), /^com.microsoft.RotaryEmbedding .* has a scale of its own$/);
  assertMatch(reason(attributed({ is_packed_batching: 1n })), /^com.microsoft.RotaryEmbedding .* packs the batch$/);
  const given = rotaryDecoder({ ...llama, operator: { domain: "", positions: "given" } });
  const tables = ["cos", "sin"].map((name) => floatTensor(name, [2, 3, 4], new Float32Array(24)));
  const graph = given.proto.graph!;
  const constant = changed({
    ...given,
    proto: withFields(given.proto, { graph: withFields(graph, { initializer: [...graph.initializer, ...tables] }) }),
  }, ({ input: [x] }) => ({ input: [x!, "cos", "sin"] }));
  assertMatch(reason(constant), /^RotaryEmbedding .* rotates by constants/);
});
