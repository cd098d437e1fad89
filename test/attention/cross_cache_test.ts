/**
 * Cross attention over calls: the first call projects the encoder's keys and values into a cache, the later ones read them from
 * it, in another branch of a merged decoder or in a file of their own. Both must agree on what the cache holds.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { chooseForm, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { Decoding } from "../support/decoding.ts";
import { type CacheOfFactored, factored } from "../support/factored.ts";
import {
  caseInputs,
  type Nested,
  nestedNumbers,
  oracleExports,
  type OracleIntervention,
  oracleReference,
  oracleTensors,
  oracleTucker,
} from "../support/oracle.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { factorsOf, type ReferenceTucker, unstackWeights } from "../support/tucker_reference.ts";

const reference = oracleReference("t5");
const { interventions } = oracleTucker("t5");
const tensors = oracleTensors("t5");
const SIZES = { d: 24, h: 8, heads: 4 };
const DECODER = ["decoder.0", "cross.0", "decoder.1", "cross.1"];
const ENCODER = ["encoder.0", "encoder.1"];

const files = new Map(oracleExports("t5").map(({ file, path }) => [file, path]));
const merged = await loadModel(files.get("onnx-past/decoder_model_merged.onnx")!);
const first = await loadModel(files.get("onnx-past/decoder_model.onnx")!);
const later = await loadModel(files.get("onnx-past/decoder_with_past_model.onnx")!);
const encoder = await loadModel(files.get("onnx-past/encoder_model.onnx")!);

/** What an intervention puts in place of the tensors of some sites, by their numbers in the file. */
function changesOf({ name, layers }: OracleIntervention, sites: readonly string[]): [number, Float32Array][] {
  return sites.flatMap((site, layer): [number, Float32Array][] => {
    if (!layers.some((each) => each.layer === site)) return [];
    return [[layer, tensors.get(name === "full" ? `layer${site}.W` : `half.layer${site}.W_hat`)!.data]];
  });
}

/** A model that can be called. */
class Callable implements AsyncDisposable {
  private constructor(
    readonly session: TestSession,
    readonly feeds: Readonly<Record<string, Numbers>>,
    readonly sizes: Readonly<Record<string, number>>,
  ) {}

  /** A file after an intervention. */
  static async after(
    intervention: OracleIntervention,
    of: { readonly model: OnnxModel; readonly sites: readonly string[] },
    execution: CacheOfFactored | "dense",
  ): Promise<Callable> {
    const changes = changesOf(intervention, of.sites);
    if (execution === "dense") {
      const weights = changes.map(([layer, data]) => [layer, unstackWeights(data, SIZES)] as const);
      return new Callable(await TestSession.load(rewriteDense(of.model, new Map(weights))), {}, {});
    }
    const factors = changes.map(([layer, data]): [number, ReferenceTucker] => [
      layer,
      factorsOf({ ...SIZES, data }, intervention.ranks),
    ]);
    const { model, feeds, sizes } = factored(of.model, new Map(factors), execution);
    return new Callable(await TestSession.load(model), feeds, sizes);
  }

  run(inputs: Readonly<Record<string, Nested>>, past: Record<string, Numbers> = {}): Promise<Record<string, Numbers>> {
    return this.session.run(inputs, { ...this.feeds, ...past }, this.sizes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

const FORMS = ["full", "compressed", "latent", "dense"] as const;
const LAYOUTS = [
  { layout: "merged decoder", first: merged, later: merged },
  { layout: "decoder and decoder_with_past", first, later },
];

for (const { layout, first, later } of LAYOUTS) {
  for (const intervention of interventions.filter(({ name }) => name !== "half")) {
    for (const execution of FORMS) {
      const what = execution === "dense" ? "dense" : `factored with a ${execution} cache`;

      Deno.test(`t5 ${layout}: ${intervention.name}, ${what}: one token at a time gives PyTorch's outputs`, async () => {
        await using starts = await Callable.after(intervention, { model: first, sites: DECODER }, execution);
        await using other = first === later
          ? undefined
          : await Callable.after(intervention, { model: later, sites: DECODER }, execution);
        for (const { name, outputs } of intervention.cases) {
          const { attention_mask, decoder_input_ids } = caseInputs(reference, name);
          const decoding = new Decoding(starts, other ?? starts, {
            encoder_attention_mask: attention_mask!,
            encoder_hidden_states: outputs["encoder_last_hidden_state"]!,
          });
          const logits = outputs["logits"] as readonly (readonly (readonly number[])[])[];
          const steps = await decoding.steps(decoder_input_ids as readonly (readonly number[])[]);
          for (const [t, actual] of steps.entries()) {
            assertNear(actual, logits.flatMap((row) => row[t]!), {
              atol: intervention.name === "full" ? 1e-4 : 1e-3 * largestValue(nestedNumbers(logits)),
              rtol: 0,
              what: `${name} token ${t}`,
            });
          }
        }
      });
    }
  }

  Deno.test(`t5 encoder and ${layout}: greedy tokens after interventions are PyTorch's`, async () => {
    for (const intervention of interventions) {
      for (const cache of ["full", "compressed", "latent"] as const) {
        await using encode = await Callable.after(intervention, { model: encoder, sites: ENCODER }, cache);
        await using starts = await Callable.after(intervention, { model: first, sites: DECODER }, cache);
        await using goesOn = await Callable.after(intervention, { model: later, sites: DECODER }, cache);
        const prompt = nestedNumbers(intervention.greedy!.prompt);
        const attention_mask = [prompt.map(() => 1)];
        const hidden = (await encode.run({ input_ids: [prompt], attention_mask }))["last_hidden_state"]!;
        const decoding = new Decoding(starts, goesOn, {
          encoder_attention_mask: attention_mask,
          encoder_hidden_states: nest(hidden),
        });
        const expected = nestedNumbers(intervention.greedy!.new_tokens);
        const found: number[] = [];
        while (found.length < expected.length) {
          const { data } = await decoding.step([found.at(-1) ?? 0]);
          found.push(Array.from(data).indexOf(largest(data)));
        }
        assertEquals(found, expected, `${intervention.name}, ${cache} cache`);
      }
    }
  });
}

function largest(values: ArrayLike<number>): number {
  return Array.from(values).reduce((a, b) => Math.max(a, b));
}

function nest({ shape, data }: Numbers): Nested {
  const [, positions, width] = shape as [number, number, number];
  return [Array.from({ length: positions }, (_, t) => Array.from(data).slice(t * width, (t + 1) * width))];
}

Deno.test("a compressed cache holds r2 numbers of the encoder's keys and values per head", async () => {
  const half = interventions.find(({ name }) => name === "half-all-and-cross")!;
  await using starts = await Callable.after(half, { model: merged, sites: DECODER }, "compressed");
  const { attention_mask } = caseInputs(reference, "single");
  const decoding = new Decoding(starts, starts, {
    encoder_attention_mask: attention_mask!,
    encoder_hidden_states: half.cases[0]!.outputs["encoder_last_hidden_state"]!,
  });
  await decoding.step([0]);
  assertEquals(decoding.past!["past_key_values.1.encoder.key"]!.shape, [1, 4, 9, 4]);
  assertEquals(decoding.past!["past_key_values.1.encoder.value"]!.shape, [1, 4, 9, 4]);
  await decoding.step([3]);
  assertEquals(decoding.past!["past_key_values.1.decoder.key"]!.shape, [1, 4, 2, 4]);
});

Deno.test("a latent cache holds the encoder's z once", async () => {
  const half = interventions.find(({ name }) => name === "half-all-and-cross")!;
  await using starts = await Callable.after(half, { model: merged, sites: DECODER }, "latent");
  const { attention_mask } = caseInputs(reference, "single");
  const decoding = new Decoding(starts, starts, {
    encoder_attention_mask: attention_mask!,
    encoder_hidden_states: half.cases[0]!.outputs["encoder_last_hidden_state"]!,
  });
  await decoding.step([0]);
  assertEquals(decoding.past!["past_key_values.1.encoder.key"]!.shape, [1, 1, 9, 12]);
  assertEquals(decoding.past!["past_key_values.1.encoder.value"]!.shape, [1, 1, 9, 0]);
  await decoding.step([3]);
  assertEquals(decoding.past!["past_key_values.1.decoder.key"]!.shape, [1, 1, 2, 12]);
});

Deno.test("cross attention that reads a cache of unknown origin is left with the reason", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/decoder_with_past_model.onnx`;
    await Deno.copyFile(later.path, path);
    const { blocks, skipped } = findAttention(await loadModel(path));
    assertEquals(blocks.length, 2);
    assertEquals(skipped.length, 2);
    for (const [i, { reason }] of skipped.entries()) {
      assertMatch(
        reason,
        new RegExp(
          `^its keys and values come from the cache past_key_values.${i}.encoder.key, and no attention .* fills`,
        ),
      );
    }
    // Beside the first call's file of another model.
    await Deno.copyFile(files.get("onnx-past/decoder_model.onnx")!, `${folder}/decoder_model.onnx`);
    const bytes = await Deno.readFile(`${folder}/decoder_model.onnx`);
    bytes[indexOf(bytes, queryBytes(later)) + 3]! ^= 0x40;
    await Deno.writeFile(`${folder}/decoder_model.onnx`, bytes);
    const reasons = findAttention(await loadModel(path)).skipped.map(({ reason }) => reason);
    assertEquals(reasons.length, 1);
    assertMatch(reasons[0]!, /the attention that fills it has other query or output matrices$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** The stored query matrix of the first cross attention. */
function queryBytes({ proto }: OnnxModel): Uint8Array {
  const node = proto.graph!.node.find(({ name }) => name === "/decoder/block.0/layer.1/EncDecAttention/q/MatMul")!;
  return proto.graph!.initializer.find(({ name }) => name === node.input[1])!.rawData!;
}

function indexOf(bytes: Uint8Array, part: Uint8Array): number {
  for (let i = 0; i + part.length <= bytes.length; i++) {
    if (part.every((byte, k) => bytes[i + k] === byte)) return i;
  }
  throw new RangeError("the bytes aren't there");
}

Deno.test("what a cross attention caches counts as its cache", () => {
  for (const model of [merged, first, later]) {
    for (const block of findAttention(model).blocks) {
      assertEquals(block.cacheNumbersPerToken, 2 * 4 * 8);
      assertEquals(chooseForm(block, "tucker4", { cache: "full" }).queryKey, "expanded");
      assertEquals(chooseForm(block, "tucker4", { cache: "compressed" }).queryKey, "reduced");
    }
  }
});
