/**
 * Keys that are rotated, made again from z and the coefficients of their positions: which graphs are known to do that, and that they compute
 * what dense weights do through the model's own cache, call by call.
 */
import { assert, assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention, rewriteDense, rewriteFactored, structureKey } from "../../src/attention/mod.ts";
import { analyse } from "../../src/attention/find.ts";
import { canBeLatent } from "../../src/attention/form.ts";
import type { Projection } from "../../src/attention/trace/projection.ts";
import type { AttentionBlock, BlockForm } from "../../src/attention/types.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { oracleExports } from "../support/oracle.ts";
import { pastOf } from "../support/pieces.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { randomInputs, runCalls } from "../support/rotary_calls.ts";
import { fedTokens, randomStates, type RotaryDecoder, rotaryDecoder } from "../support/rotary_decoder.ts";
import { TestSession } from "../support/session.ts";

const TRIALS = 6;
const llama: RotaryDecoder = { thetas: [10000, 10000, 10000], rotated: 8 };

/** Decoders whose rotation is known, with the number of their coefficients. */
const KNOWN: Readonly<Record<string, RotaryDecoder & { readonly coefficients: number }>> = {
  "all numbers, halves": { ...llama, coefficients: 8 },
  "all numbers, neighbours": { ...llama, interleaved: true, coefficients: 8 },
  "some numbers, halves": { ...llama, rotated: 4, coefficients: 4 },
  "some numbers, neighbours": { ...llama, rotated: 4, interleaved: true, coefficients: 4 },
  "keys with a bias": { ...llama, rotated: 4, bias: true, coefficients: 4 },
  "scaled keys with a bias": { ...llama, scaledKeys: true, bias: true, coefficients: 8 },
  "positions counted from the past": { ...llama, counted: true, coefficients: 8 },
  "angles that grow slower with every call": { ...llama, dynamic: true, coefficients: 8 },
  "a product with a scale of its own": { ...llama, fusedProduct: true, coefficients: 8 },
  "float16 with scores in float32": { ...llama, rotated: 4, half: true, coefficients: 4 },
  "keys with scales of each head": { ...llama, rotated: 4, gains: true, bias: true, coefficients: 4 },
  "keys normed in plain operators": { ...llama, norm: "plain", coefficients: 8 },
  "keys normed about their mean": { ...llama, rotated: 4, norm: "centred", coefficients: 4 },
  "halved keys, normed about their mean": {
    ...llama,
    interleaved: true,
    norm: "centred",
    halved: true,
    coefficients: 8,
  },
  "keys normed by LayerNormalization": { ...llama, rotated: 4, norm: "LayerNormalization", coefficients: 4 },
  "halved keys, normed by SimplifiedLayerNormalization": {
    ...llama,
    norm: "SimplifiedLayerNormalization",
    halved: true,
    coefficients: 8,
  },
  "keys normed with gains of each head": { ...llama, rotated: 4, norm: "plain", normOf: "own gains", coefficients: 4 },
  "keys with a bias, normed about their mean, with gains of each head": {
    ...llama,
    rotated: 4,
    bias: true,
    norm: "centred",
    normOf: "own gains",
    coefficients: 4,
  },
  "keys normed head by head": { ...llama, norm: "LayerNormalization", normOf: "each head", coefficients: 8 },
  "keys normed together": { ...llama, norm: "plain", normOf: "all heads", coefficients: 8 },
  "keys normed together by an operator": {
    ...llama,
    rotated: 4,
    norm: "SimplifiedLayerNormalization",
    normOf: "all heads",
    halved: true,
    coefficients: 4,
  },
  "keys with a bias, halved and normed": {
    ...llama,
    rotated: 4,
    bias: true,
    norm: "plain",
    halved: true,
    coefficients: 4,
  },
  "normed keys without rotation": { ...llama, rotated: 0, norm: "plain", coefficients: 0 },
  "normed keys in float16": { ...llama, rotated: 4, norm: "plain", half: true, coefficients: 4 },
  "no rotation": { ...llama, rotated: 0, coefficients: 0 },
  "no rotation, keys with a bias": { ...llama, rotated: 0, bias: true, coefficients: 0 },
  "layers that are rotated differently": { ...llama, thetas: [10000, 500, 10000], coefficients: 8 },
  "layers that are rotated differently, with a bias": {
    ...llama,
    thetas: [10000, 500, 500],
    rotated: 4,
    interleaved: true,
    bias: true,
    coefficients: 4,
  },
};

/** One z for rotated keys and small values. */
const LATENT: BlockForm = {
  ...{ query: "shared", key: "shared", value: "shared", output: "shared" },
  ...{ queryKey: "expanded", valueOutput: "reduced", keyValueHeads: 2, latent: ["key", "value"] },
};
/** Keys of four heads from a z of their own, and nothing else in factors. */
const KEYS: BlockForm = {
  ...{ query: "kept", key: "pair", value: "kept", output: "kept" },
  ...{ queryKey: "expanded", valueOutput: "expanded", keyValueHeads: 4, latent: ["key"] },
};

/** A random form: where heads are normed together, none of them runs twice. */
function formOf(block: AttentionBlock, random: Random, decoder: RotaryDecoder): BlockForm {
  const form = randomForm(block, random, "latent");
  const fits = decoder.normOf !== "all heads" || form.keyValueHeads === block.keyValueHeads;
  return fits ? form : formOf(block, random, decoder);
}

for (const [name, { coefficients, ...decoder }] of Object.entries(KNOWN)) {
  Deno.test(`${name}: random forms of random layers through latent caches give what dense weights do`, async () => {
    const random = seededRandom(name);
    const model = rotaryDecoder(decoder);
    const { blocks } = findAttention(model);
    const groups = blocks.map(({ keyRotation }) => keyRotation!.group);
    assertEquals(blocks.map(({ keyRotation }) => keyRotation!.coefficients), blocks.map(() => coefficients));
    const { thetas } = decoder;
    assertEquals(groups.map((group) => groups.indexOf(group)), thetas.map((theta) => thetas.indexOf(theta)));
    for (let trial = 0; trial < TRIALS; trial++) {
      const chosen = blocks.filter(({ layer }) => layer === trial % blocks.length || random() < 0.7);
      const forms = new Map(chosen.map((block): [number, BlockForm] => [
        block.layer,
        trial === 0 ? LATENT : formOf(block, random, decoder),
      ]));
      const made = withRandomFactors(model, forms, random);
      const { rewritten, feeds, ranks } = made;
      await using dense = await TestSession.load(rewriteDense(model, made.weights));
      // Factors as in files: ONNX Runtime 1.30 crashes as it optimises float16 graphs that take them as inputs.
      await using session = await TestSession.load(decoder.half ? closedModel(model, forms, made) : rewritten);
      const inputs = randomInputs(random);
      const expected = await runCalls(dense, inputs);
      const actual = await runCalls(session, inputs, { feeds: decoder.half ? {} : feeds, sizes: ranks });
      for (const [i, { y }] of actual.entries()) {
        const what = `trial ${trial}, call ${i} of ${inputs.pieces}, ${structureKey(forms)}`;
        const atol = (decoder.half ? 1e-2 : 2e-5) * largestValue(y!.data);
        assertNear(y!.data, expected[i]!["y"]!.data, { atol, rtol: 0, what });
      }
    }
  });
}

Deno.test("layers that are rotated alike keep their coefficients once, those that aren't have their own", () => {
  const widths = (model: OnnxModel, layers: readonly number[]): (number | string)[] => {
    const { blocks } = findAttention(model);
    const forms = new Map(
      blocks.filter(({ layer }) => layers.includes(layer)).map((block): [number, BlockForm] => [
        block.layer,
        {
          ...{ query: "shared", key: "shared", value: "shared", output: "shared" },
          ...{ queryKey: "expanded", valueOutput: "reduced", keyValueHeads: 2, latent: ["key", "value"] },
        },
      ]),
    );
    const { model: rewritten } = rewriteFactored(model, forms, { factors: "inputs" });
    const dims = ({ name }: { readonly name: string }) => /^past.*key$/.test(name);
    return rewritten.proto.graph!.input.filter(dims).map(({ type }) =>
      type!.tensorType!.shape!.dim.at(-1)!.value.value as string | bigint
    ).map((size) => typeof size === "bigint" ? Number(size) : size);
  };
  const alike = rotaryDecoder(llama);
  assertEquals(widths(alike, [0, 1, 2]), ["layer0.r1 + 8", "layer1.r1", "layer2.r1"]);
  assertEquals(widths(alike, [1, 2]), [8, "layer1.r1 + 8", "layer2.r1"]);
  assertEquals(widths(rotaryDecoder({ ...llama, thetas: [10000, 500, 10000] }), [0, 1, 2]), [
    "layer0.r1 + 8",
    "layer1.r1 + 8",
    "layer2.r1",
  ]);
  // Some layers may keep fewer positions than others.
  assertEquals(widths(rotaryDecoder({ ...llama, pasts: ["past", "window", "past"] }), [0, 1, 2]), [
    "layer0.r1 + 8",
    "layer1.r1 + 8",
    "layer2.r1",
  ]);
});

Deno.test("a graph reads what another has kept that sums the rotation's terms the other way round", async () => {
  const random = seededRandom("flipped");
  for (const interleaved of [false, true]) {
    const subject: RotaryDecoder = { ...llama, rotated: 4, ...interleaved ? { interleaved } : {} };
    const [model, flipped] = [rotaryDecoder(subject), rotaryDecoder({ ...subject, flipped: true })];
    const forms = new Map(findAttention(model).blocks.map(({ layer }) => [layer, LATENT] as const));
    const { rewritten, feeds, ranks, weights } = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(model, weights));
    await using first = await TestSession.load(rewritten);
    await using then = await TestSession.load(rewriteFactored(flipped, forms, { factors: "inputs" }).model);
    const inputs = { states: randomStates(2, 6, random), padding: [0, 2], pieces: [4, 2] };
    const [, expected] = await runCalls(dense, inputs);
    const [call] = await runCalls(first, { ...inputs, pieces: [4] }, { feeds, sizes: ranks });
    const fed = fedTokens(inputs.states, { padding: inputs.padding, from: 4, to: 6 });
    const { y } = await then.run(fed, { ...feeds, ...pastOf(call!) }, ranks);
    assertNear(y!.data, expected!["y"]!.data, { atol: 2e-5 * largestValue(y!.data), rtol: 0, what: "second call" });
  }
});

Deno.test("keys alone can be made from z, and nothing of their matrix is left", async () => {
  const files = oracleExports("llama").filter(({ file }) => file.includes("-past/"));
  for (const { path, file } of files) {
    const model = await loadModel(path);
    const forms = new Map(findAttention(model).blocks.map(({ layer }) => [layer, KEYS]));
    const left = new Set(
      rewriteFactored(model, forms, { factors: "inputs" }).model.proto.graph!.initializer.map(({ name }) => name),
    );
    for (const { sites: [site] } of analyse(model).blocks) {
      const stored = ({ projection }: { readonly projection: Projection }) => projection.stored.name;
      const has = [site.query, site.key, site.value].map((view) => left.has(stored(view)));
      assertEquals(has, [true, false, true], file);
    }
  }
});

/** What else is done to keys, and why they stay at full size then. */
const REFUSED: Readonly<Record<NonNullable<RotaryDecoder["otherwise"]>, RegExp>> = {
  norm: /^(Mul|ReduceMean) .* reads .* too$|^Div .* is no part of a rotation$/,
  squared: /^Pow .* is no part of a rotation$/,
  "all positions": /^the keys .* don't begin with those of the cache as they are$/,
  window: /^the keys .* don't begin with those of the cache as they are$/,
  "per head": /^its heads and positions aren't all rotated in the same way$/,
  "added to its norm": /^MatMul .* is no part of a rotation$/,
  "shifted behind a coefficient": /^Add .* is no part of a rotation$/,
  "given out unrotated": /^the cache present\.0\.key holds other keys than the product of the scores reads$/,
};

for (const [otherwise, reason] of Object.entries(REFUSED) as [keyof typeof REFUSED, RegExp][]) {
  Deno.test(`keys stay at full size, for a reason that is reported: ${otherwise}`, async () => {
    const model = rotaryDecoder({ ...llama, otherwise });
    const { blocks, operators } = findAttention(model);
    assertEquals(blocks.length, 3);
    assertEquals(blocks.map(({ keyRotation }) => keyRotation), [undefined, undefined, undefined]);
    assertMatch(blocks[0]!.noLatentKeysBecause!, reason);
    assert(operators[0]!.reason!.includes(blocks[0]!.noLatentKeysBecause!), operators[0]!.reason);
    // One takes one token a call, the other is no decoder at all.
    if (otherwise === "window" || otherwise === "given out unrotated") return;
    const random = seededRandom(otherwise);
    const forms = new Map(
      blocks.map((block): [number, BlockForm] => [block.layer, randomForm(block, random, "latent")]),
    );
    const { rewritten, feeds, ranks, weights } = withRandomFactors(model, forms, random);
    await using dense = await TestSession.load(rewriteDense(model, weights));
    await using session = await TestSession.load(rewritten);
    const inputs = randomInputs(random);
    const expected = await runCalls(dense, inputs);
    const actual = await runCalls(session, inputs, { feeds, sizes: ranks });
    for (const [i, { y }] of actual.entries()) {
      const what = `call ${i}, ${structureKey(forms)}`;
      assertNear(y!.data, expected[i]!["y"]!.data, { atol: 2e-5 * largestValue(y!.data), rtol: 0, what });
    }
  });
}

Deno.test("normed keys are made from z where heads have r2 numbers, and normed together where none runs twice", () => {
  const able = (decoder: Partial<RotaryDecoder>, form: BlockForm): boolean => {
    const [block] = findAttention(rotaryDecoder({ ...llama, ...decoder })).blocks;
    return canBeLatent(block!, form, "key");
  };
  const many = { ...LATENT, keyValueHeads: 4 };
  assertEquals([LATENT, many, KEYS].map((form) => able({ norm: "plain" }, form)), [true, true, false]);
  const together = { norm: "plain", normOf: "all heads" } as const;
  assertEquals([LATENT, many, KEYS].map((form) => able(together, form)), [true, false, false]);
});

/** Norms that can't be taken in the small space. */
const UNFIT: readonly (readonly [decoder: Partial<RotaryDecoder>, reason: RegExp])[] = [
  [{ norm: "centred", normOf: "all heads" }, /^the norm of its keys .* takes off the mean of all heads together$/],
  [{ norm: "LayerNormalization", normOf: "each head", unlike: true }, /^its heads are normed differently$/],
  [{ norm: "plain", normOf: "halves of heads" }, /^the norm of its keys .* mixes heads$/],
  [{ norm: "plain", normOf: "all heads", bias: true }, /^a bias stands before the norm of all heads together, /],
];

for (const [decoder, reason] of UNFIT) {
  Deno.test(`keys stay at full size, for a reason that is reported: ${JSON.stringify(decoder)}`, () => {
    for (const { keyRotation, noLatentKeysBecause } of findAttention(rotaryDecoder({ ...llama, ...decoder })).blocks) {
      assertEquals(keyRotation, undefined);
      assertMatch(noLatentKeysBecause!, reason);
    }
  });
}

Deno.test("layers that share their matrices make keys from z where they norm them alike", () => {
  const reasons = (epsilons: readonly number[], more: Partial<RotaryDecoder> = {}): (string | undefined)[] => {
    const decoder: RotaryDecoder = { ...llama, thetas: [10000, 10000], norm: "plain", shared: true, epsilons, ...more };
    return findAttention(rotaryDecoder(decoder)).blocks.map(({ noLatentKeysBecause }) => noLatentKeysBecause);
  };
  assertEquals(reasons([0.05, 0.05]), [undefined]);
  const different = ["the graph's branches don't rotate its keys in the same way"];
  assertEquals(reasons([0.05, 0.06]), different);
  assertEquals(reasons([0.05, 0.05], { bias: true }), different);
});

Deno.test("branches that rotate keys differently don't share z", async () => {
  const { path } = oracleExports("llama-gqa").find(({ file }) => file === "onnx-decoders/decoder_model_merged.onnx")!;
  const model = await loadModel(path);
  const known = findAttention(model).blocks.map(({ keyRotation }) => keyRotation?.coefficients);
  assertEquals(known, [8, 8]);
  const [first] = new Graph(model.proto.graph!).subgraphs;
  const negations = first!.proto.node.filter(({ opType }) => opType === "Neg");
  assertEquals(negations.length, 4, "of query and key of two layers");
  for (const node of negations.slice(0, 2)) node.opType = "Identity";
  const { blocks } = findAttention({ ...model });
  assertEquals(blocks.map(({ noLatentKeysBecause }) => noLatentKeysBecause), [
    "the graph's branches don't rotate its keys in the same way",
    undefined,
  ]);
});
