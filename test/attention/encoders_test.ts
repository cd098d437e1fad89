/**
 * Encoders, vision and speech models and encoder-decoders beyond the oracle's: what is found runs as PyTorch says, before and
 * after every attention is at half ranks; what isn't is left with its reason.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { findAttention } from "../../src/attention/mod.ts";
import { loadModel } from "../../src/onnx/model.ts";
import {
  Architecture,
  architectures,
  checkDecoder,
  checkEncoder,
  type OpenedArchitecture,
} from "../support/encoders.ts";

/** What keeps spaces expanded and what is left, in every export of a model: nothing where a model isn't listed. */
interface Expected {
  readonly queryKey?: RegExp;
  readonly valueOutput?: RegExp;
  /** Reasons of what is left, in order; the model's attentions are then not found. */
  readonly left?: readonly RegExp[];
}

const positionsToo = /^(MatMul|Gemm) \(.*\) reads .* too$/;
const rotated = /^query: (Add|Mul) \(.*\) changes it$/;
const cannotStack = /^query, key and value read rows of 16, 16, 20 numbers and the output has 16: they don't stack/;
const convolved = /^the query can't be followed: it comes from Conv \(.*\) instead of a projection$/;
const axis = /^it runs over axis 1 of \[\d+,3,1\], attention's runs over the last$/;
const mixed = /^the output projection has 16 rows for 2 heads of 4$/;
const inBlocks = /^the query can't be followed: it comes from Pad \(.*\) instead of a projection$/;

const EXPECTED: Readonly<Record<string, Expected>> = {
  deberta: { queryKey: positionsToo },
  "deberta-v2": { queryKey: positionsToo },
  "deberta-v3": { queryKey: positionsToo },
  modernbert: { queryKey: rotated },
  nomic: { queryKey: rotated },
  roformer: { queryKey: rotated },
  esm: { queryKey: rotated },
  swinv2: { queryKey: /^query: Div \(.*\) changes it$/ },
  "sam-vision": { queryKey: positionsToo },
  mobilebert: { left: [cannotStack, cannotStack] },
  squeezebert: { left: [convolved, convolved] },
  convbert: { left: [axis, mixed, axis, mixed] },
  xlnet: { queryKey: positionsToo },
  funnel: { queryKey: /^Einsum \(.*\) reads .* too$/ },
};

/** What is left in one file of an encoder-decoder. */
const LEFT: Readonly<Record<string, readonly RegExp[]>> = { "longt5/encoder_model.onnx": [inBlocks] };

function checkReasons({ blocks }: OpenedArchitecture, { queryKey, valueOutput }: Expected): void {
  for (const block of blocks) {
    const pairs = [[block.queryKeyExpandedBecause, queryKey], [block.valueOutputExpandedBecause, valueOutput]] as const;
    for (const [reason, expected] of pairs) {
      if (expected === undefined) assertEquals(reason, undefined);
      else assertMatch(reason ?? "", expected);
    }
  }
}

function checkLeft({ skipped }: Pick<OpenedArchitecture, "skipped">, left: readonly RegExp[]): void {
  assertEquals(skipped.length, left.length, JSON.stringify(skipped));
  left.forEach((reason, i) => assertMatch(skipped[i]!.reason, reason));
}

for (const name of architectures()) {
  const architecture = new Architecture(name);
  for (const form of architecture.forms) {
    if ("decoder_input_ids" in architecture.reference.cases[0]!.inputs) encoderDecoder(architecture, form);
    else encoder(architecture, form);
  }
}

function encoder(architecture: Architecture, form: string): void {
  const expected = EXPECTED[architecture.name] ?? {};
  const { left } = expected;
  if (left !== undefined) {
    Deno.test(`${architecture.name}/${form}: nothing is found, and every softmax is left with its reason`, async () => {
      const path = new URL(`${form}/model.onnx`, architecture.folder).pathname;
      const { blocks, skipped } = findAttention(await loadModel(path));
      assertEquals(blocks, []);
      checkLeft({ skipped }, left);
    });
    return;
  }
  Deno.test(`${architecture.name}/${form}: every attention is found and gives PyTorch's outputs`, async () => {
    const opened = await architecture.open(form);
    assertEquals([...opened.sites].sort(), [...architecture.sites].sort());
    checkLeft(opened, []);
    checkReasons(opened, expected);
    await checkEncoder(architecture, opened);
  });
}

function encoderDecoder(architecture: Architecture, form: string): void {
  Deno.test(`${architecture.name}/${form}: encoder, decoder and cross attention give PyTorch's outputs through the cache`, async () => {
    const files = ["encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"];
    const [source, first, later] = await Promise.all(files.map((file) => architecture.open(form, file))) as [
      OpenedArchitecture,
      OpenedArchitecture,
      OpenedArchitecture,
    ];
    for (const [i, opened] of [source, first, later].entries()) {
      checkLeft(opened, LEFT[`${architecture.name}/${files[i]}`] ?? []);
      checkReasons(opened, {});
    }
    const inDecoder = architecture.sites.filter((site) => site.includes("decoder"));
    for (const { sites } of [first, later]) assertEquals([...sites].sort(), [...inDecoder].sort());
    if (source.blocks.length > 0) await checkEncoder(architecture, source);
    await checkDecoder(architecture, [first, later]);
  });
}
