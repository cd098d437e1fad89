/**
 * What every export of every oracle model must show: its blocks are found with PyTorch's weights, and factored and dense
 * execution give PyTorch's outputs, untouched and after interventions.
 *
 * @module
 */
import { assertEquals } from "@std/assert/mod.js";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import type { AttentionWeights } from "../../src/attention/types.ts";
import { analyse } from "../../src/attention/find.ts";
import { loadModel } from "../../src/onnx/model.ts";
import { assertNear, largestDifference, largestValue } from "./close.ts";
import { type CacheOfFactored, factored } from "./factored.ts";
import { greedy } from "./greedy.ts";
import {
  type Nested,
  nestedNumbers,
  nestedShape,
  type OracleCase,
  type OracleExport,
  type OracleReference,
  oracleReference,
  type OracleTensor,
  oracleTensors,
  type OracleTucker,
  oracleTucker,
  takesOneToken,
} from "./oracle.ts";
import { oneByOne, runInPieces } from "./pieces.ts";
import { type Numbers, TestSession } from "./session.ts";
import { factorsOf, type ReferenceTucker, stackWeights, unstackWeights } from "./tucker_reference.ts";

/** The oracle's data of one model, with exact factors of its tensors worked out once for all exports. */
export class Conformance {
  readonly reference: OracleReference;
  readonly tucker: OracleTucker;
  readonly #tensors: ReadonlyMap<string, OracleTensor>;
  readonly #factors = new Map<string, ReferenceTucker>();

  constructor(readonly model: string) {
    this.reference = oracleReference(model);
    this.tucker = oracleTucker(model);
    this.#tensors = oracleTensors(model);
  }

  /** d, h and H. */
  get sizes(): { readonly d: number; readonly h: number; readonly heads: number } {
    const [first] = this.tucker.sites ?? [this.tucker];
    return { d: first!.d_model!, h: first!.d_head!, heads: first!.n_heads! };
  }

  /** Key and value heads in the file. */
  get keyValueHeads(): number {
    return this.tucker.num_key_value_heads ?? this.tucker.sites?.[0]?.kv_heads ?? this.sizes.heads;
  }

  /** Number of blocks with weights of their own. */
  get layers(): number {
    return [...this.#tensors.keys()].filter((key) => /^layer\d+\.W$/.test(key)).length;
  }

  /**
   * Every block is found, none is skipped but for a reason that `others` describes, and weights equal the original ones to the
   * last bit.
   */
  async checkFound({ path }: OracleExport, others?: RegExp): Promise<void> {
    const model = await loadModel(path);
    const { blocks, skipped } = findAttention(model);
    const { d, h, heads } = this.sizes;
    assertEquals(skipped.filter(({ reason }) => others?.test(reason) !== true), []);
    assertEquals(
      blocks.map((block) => [block.layer, block.hiddenSize, block.headSize, block.heads, block.keyValueHeads]),
      Array.from({ length: this.layers }, (_, l) => [l, d, h, heads, this.keyValueHeads]),
    );
    for (const block of blocks) {
      const { weights } = extractWeights(model, block);
      assertEquals(largestDifference(stackWeights(weights), this.#tensor(`layer${block.layer}.W`)), 0);
    }
  }

  /** Every layer through factors at full ranks equals PyTorch's outputs to 1e-4. */
  async checkFullRanks({ path, file }: OracleExport): Promise<void> {
    const model = await loadModel(path);
    const { d, h } = this.sizes;
    const layers = Array.from({ length: this.layers }, (_, l) => l);
    const factors = new Map(layers.map((l) => [l, this.#factorsOf(`layer${l}.W`, [d, h, 4])]));
    const { model: rewritten, feeds } = factored(model, factors);
    await using session = await TestSession.load(rewritten);
    for (const entry of this.#fitting(session, file)) {
      const outputs = await session.run(entry.inputs, feeds);
      for (const [name, numbers] of comparable(outputs, entry)) {
        assertNear(numbers.actual, numbers.expected, { atol: 1e-4, rtol: 0, what: `${file} ${entry.name} ${name}` });
      }
    }
  }

  /** With every layer rewritten, none of the original matrices is left in the graph. */
  async checkReplaced({ path }: OracleExport, cache: CacheOfFactored): Promise<void> {
    const model = await loadModel(path);
    const { d, h } = this.sizes;
    const layers = Array.from({ length: this.layers }, (_, l) => l);
    const factors = new Map(layers.map((l) => [l, this.#factorsOf(`layer${l}.W`, [d, h, 4])]));
    const { model: rewritten } = factored(model, factors, cache);
    const matrices = analyse(model).blocks.flatMap(({ sites }) =>
      sites.flatMap(({ query, key, value, output }) =>
        [query, key, value, output].map((view) => view.projection.stored.name)
      )
    );
    const left = rewritten.proto.graph!.initializer.map(({ name }) => name);
    assertEquals(matrices.filter((name) => left.includes(name)), []);
  }

  /**
   * Interventions, factored and dense, equal PyTorch's outputs to 1e-3 of the largest value. One session for each choice of
   * layers serves all ranks.
   */
  async checkInterventions(
    { path, file }: OracleExport,
    execution: "factored" | "dense",
    only?: readonly string[],
  ): Promise<void> {
    const model = await loadModel(path);
    const sessions = new Map<string, TestSession>();
    for (const { name, ranks, layers, cases } of this.tucker.interventions) {
      if (name === "full" || only?.includes(name) === false) continue;
      const where = layers.map(({ layer }) => Number(layer));
      let feeds: Readonly<Record<string, Numbers>> = {};
      let rewritten = model;
      if (execution === "factored") {
        const factors = new Map(where.map((l) => [l, this.#factorsOf(this.#reconstruction(name, l), ranks)]));
        ({ model: rewritten, feeds } = factored(model, factors));
      } else {
        const weights = where.map((l) => [l, this.#weights(this.#reconstruction(name, l))] as const);
        rewritten = rewriteDense(model, new Map(weights));
      }
      const key = execution === "factored" ? `${where} ${Object.keys(feeds)} ${ranks[2] === 4}` : name;
      let session = sessions.get(key);
      if (session === undefined) sessions.set(key, session = await TestSession.load(rewritten));
      for (const { name: caseName, outputs: nested } of cases) {
        const entry = this.#fitting(session, file).find((candidate) => candidate.name === caseName);
        if (entry === undefined) continue;
        const outputs = await session.run(entry.inputs, feeds);
        for (const [output, { actual, expected }] of comparable(outputs, { ...entry, outputs: nested })) {
          const what = `${file} ${name} ${caseName} ${execution} ${output}`;
          assertNear(actual, expected, { atol: 1e-3 * largestValue(expected), rtol: 0, what });
        }
      }
    }
    for (const session of sessions.values()) await session[Symbol.asyncDispose]();
  }

  /**
   * Interventions, run through the cache in pieces of one token and of several, give PyTorch's logits to 1e-4 of their largest
   * value, wherever the mask shows them.
   */
  async checkPieces(exported: OracleExport, cache: CacheOfFactored, only: readonly string[]): Promise<void> {
    const { path, file } = exported;
    const model = await loadModel(path);
    for (const { name, ranks, layers, cases } of this.tucker.interventions.filter((each) => only.includes(each.name))) {
      const where = layers.map(({ layer }) => Number(layer));
      const factors = new Map(where.map((l) => [l, this.#factorsOf(this.#reconstruction(name, l), ranks)]));
      const { model: rewritten, feeds, sizes } = factored(model, factors, cache);
      await using session = await TestSession.load(rewritten);
      for (const { name: caseName, outputs } of cases) {
        const entry = this.#fitting(session, file).find((candidate) => candidate.name === caseName);
        if (entry === undefined) continue;
        const tokens = nestedShape(entry.inputs["input_ids"]!)[1]!;
        // Some originals refuse padding alone: the positions that it is given lie behind those that they know by then.
        const padded = nestedNumbers(entry.inputs["attention_mask"]!).includes(0);
        const cuts = padded ? [[6, 1, tokens - 7]] : [[1, tokens - 4, 1, 2], Array.from({ length: tokens }, () => 1)];
        for (const cut of cuts) {
          const pieces = takesOneToken(exported) ? oneByOne(cut) : cut;
          const { logits } = await runInPieces(session, entry.inputs, { pieces, factors: feeds, sizes });
          const wanted = { ...entry, outputs: { logits: outputs["logits"]! } };
          for (const [output, { actual, expected }] of comparable({ logits }, wanted)) {
            const what = `${file} ${name} ${caseName} in pieces of ${pieces}, ${output}`;
            assertNear(actual, expected, { atol: 1e-4 * largestValue(expected), rtol: 0, what });
          }
        }
      }
    }
  }

  /** Greedy decoding after every intervention, through the cache where the graph has one, gives PyTorch's tokens. */
  async checkGreedy(
    { path, file }: OracleExport,
    cache: CacheOfFactored,
    only?: readonly string[],
  ): Promise<void> {
    const model = await loadModel(path);
    for (const { name, ranks, layers, greedy: expected } of this.tucker.interventions) {
      const wanted = only?.includes(name) ?? name !== "full";
      if (expected === undefined || !wanted) continue;
      const factors = new Map(
        layers.map(({ layer }) => [Number(layer), this.#factorsOf(this.#reconstruction(name, Number(layer)), ranks)]),
      );
      const { model: rewritten, feeds, sizes } = factored(model, factors, cache);
      await using session = await TestSession.load(rewritten);
      const prompt = nestedNumbers(expected.prompt);
      const tokens = nestedNumbers(expected.new_tokens);
      const found = await greedy(session, { prompt, count: tokens.length, factors: feeds, sizes });
      assertEquals(found, tokens, `${file} ${name}`);
    }
  }

  /** The reference's cases that suit the graph. */
  #fitting(session: TestSession, file: string): OracleCase[] {
    return this.reference.cases.filter((entry) => this.#fits(session, file, entry));
  }

  #fits(session: TestSession, file: string, { name, inputs }: OracleCase): boolean {
    const asked = session.inputs.filter((input) => !isFactor(input) && !isPast(input) && input !== "use_cache_branch");
    if (!asked.every((input) => input in inputs)) return false;
    // Padding on the left needs positions, unless the model makes them from the mask.
    const positions = asked.includes("position_ids") || this.reference.model_takes_position_ids === false;
    if (/left-pad/.test(name) && !positions && !name.endsWith("nopos")) return false;
    const past = Object.keys(inputs).some(isPast);
    if (past && !session.inputs.some(isPast)) return false;
    // Decoders traced with one token take one token a call.
    if (past && file.includes("/decoder_")) return nestedShape(inputs["input_ids"]!)[1] === 1;
    return past || !file.endsWith("decoder_with_past_model.onnx");
  }

  /** Name of a layer's reconstruction; models with one set of ranks store it once, as `half`. Full ranks give the original. */
  #reconstruction(intervention: string, layer: number): string {
    if (intervention === "full") return `layer${layer}.W`;
    const own = `${intervention}.layer${layer}.W_hat`;
    return this.#tensors.has(own) ? own : `half.layer${layer}.W_hat`;
  }

  #tensor(name: string): Float32Array {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new TypeError(`the oracle's ${this.model} has no tensor ${name}`);
    return tensor.data;
  }

  #weights(name: string): AttentionWeights {
    return unstackWeights(this.#tensor(name), this.sizes);
  }

  #factorsOf(name: string, ranks: readonly [number, number, number]): ReferenceTucker {
    let factors = this.#factors.get(name);
    if (factors === undefined) {
      factors = factorsOf({ ...this.sizes, data: this.#tensor(name) }, ranks);
      this.#factors.set(name, factors);
    }
    return factors;
  }
}

function isFactor(name: string): boolean {
  return name.startsWith("tuckerd.");
}

function isPast(name: string): boolean {
  return name.startsWith("past_key_values.");
}

/** Outputs that both have; positions that the mask hides are left out where the model is causal. */
export function comparable(
  outputs: Record<string, Numbers>,
  entry: OracleCase,
): [string, { actual: number[]; expected: number[] }][] {
  const names = Object.keys(entry.outputs).filter((name) => name in outputs);
  if (names.length === 0) throw new Error(`${entry.name}: the model gives none of ${Object.keys(entry.outputs)}`);
  return names.map((name) => {
    const { shape, data } = outputs[name]!;
    const expected = nestedNumbers(entry.outputs[name]!);
    if (expected.length !== data.length) throw new Error(`${entry.name} ${name}: shape [${shape}] is wrong`);
    const seen = visible(shape, name, entry.inputs);
    return [name, { actual: Array.from(data).filter((_, i) => seen(i)), expected: expected.filter((_, i) => seen(i)) }];
  });
}

/** Positions with mask 0 of a decoder's logits [B, T, v] and caches [B, H, P + T, h] are implementation defined. */
function visible(
  shape: readonly number[],
  name: string,
  inputs: Readonly<Record<string, Nested>>,
): (index: number) => boolean {
  const cache = name.startsWith("present.");
  if (
    !cache && name !== "logits" || !("attention_mask" in inputs) || "decoder_input_ids" in inputs || shape.length < 3
  ) {
    return () => true;
  }
  const mask = nestedNumbers(inputs["attention_mask"]!);
  const total = mask.length / shape[0]!;
  const positions = shape.at(-2)!;
  const perBatch = shape.slice(1).reduce((a, b) => a * b, 1);
  return (index) => {
    const position = Math.floor(index / shape.at(-1)!) % positions;
    return mask[Math.floor(index / perBatch) * total + total - positions + position] !== 0;
  };
}
