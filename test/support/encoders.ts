/**
 * More architectures than the oracle has (test/testdata/encoders): tiny models of random weights with PyTorch's outputs
 * before and after every attention is replaced by its reconstruction at half ranks.
 *
 * @module
 */
import { extractWeights, findAttention, rewriteDense, type SkippedAttention } from "../../src/attention/mod.ts";
import type { AttentionBlock } from "../../src/attention/types.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { assertNear, largestDifference, largestValue } from "./close.ts";
import { Decoding } from "./decoding.ts";
import { type CacheOfFactored, factored } from "./factored.ts";
import {
  nestedNumbers,
  type OracleCase,
  type OracleReference,
  type OracleTensor,
  type OracleTucker,
  readSafetensors,
} from "./oracle.ts";
import { type Numbers, TestSession } from "./session.ts";
import { factorsOf, type ReferenceTucker, stackWeights, unstackWeights } from "./tucker_reference.ts";

/** Where the models lie. */
export const ARCHITECTURES = new URL("../testdata/encoders/", import.meta.url);

/** One model with its exports and what PyTorch says of it. */
export class Architecture {
  readonly reference: OracleReference;
  readonly #tucker: OracleTucker;
  readonly #tensors: ReadonlyMap<string, OracleTensor>;

  constructor(readonly name: string, readonly folder: URL = new URL(`${name}/`, ARCHITECTURES)) {
    const json = (file: string): unknown => JSON.parse(Deno.readTextFileSync(new URL(file, folder)));
    this.reference = json("reference.json") as OracleReference;
    this.#tucker = json("tucker.json") as OracleTucker;
    this.#tensors = this.sites.length === 0
      ? new Map()
      : readSafetensors(Deno.readFileSync(new URL("tucker.safetensors", folder)));
  }

  /** Names of the attentions in PyTorch's model. */
  get sites(): readonly string[] {
    return (this.#tucker.sites ?? []).map(({ name }) => name!);
  }

  /** Exports: `torchscript-17-sdpa`. */
  get forms(): string[] {
    return [...Deno.readDirSync(this.folder)].filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();
  }

  /** Outputs of a case after every attention is at half ranks. */
  halved({ name }: OracleCase): OracleCase["outputs"] {
    return this.#tucker.interventions[0]!.cases.find((entry) => entry.name === name)!.outputs;
  }

  /** Reads an export and says which of PyTorch's attentions each of its blocks is, by the weights. */
  async open(form: string, file = "model.onnx"): Promise<OpenedArchitecture> {
    const model = await loadModel(new URL(`${form}/${file}`, this.folder).pathname);
    const { blocks, skipped } = findAttention(model);
    const sites = blocks.map((block) => {
      const stacked = stackWeights(extractWeights(model, block).weights);
      const site = this.sites.find((name) =>
        largestDifference(stacked, this.#tensors.get(`layer${name}.W`)!.data) === 0
      );
      if (site === undefined) {
        throw new Error(`${form}/${file}: the weights of ${block.name} are no attention's of PyTorch`);
      }
      return site;
    });
    return { model, blocks, skipped, sites };
  }

  /** A model with the weights of all its attentions replaced, ready to run. */
  async load(
    { model, blocks, sites }: OpenedArchitecture,
    ranks: "full" | "half",
    execution: "dense" | { readonly cache: CacheOfFactored },
  ): Promise<Loaded> {
    const tensors = blocks.map((block, i) => {
      const { hiddenSize: d, headSize: h, heads } = block;
      const name = ranks === "full" ? `layer${sites[i]}.W` : `half.layer${sites[i]}.W_hat`;
      return { d, h, heads, data: this.#tensors.get(name)!.data };
    });
    if (execution === "dense") {
      const weights = tensors.map((tensor, i) => [i, unstackWeights(tensor.data, tensor)] as const);
      return new Loaded(await TestSession.load(rewriteDense(model, new Map(weights))), {}, {});
    }
    const factors = tensors.map((tensor, i): [number, ReferenceTucker] => {
      const { d, h } = tensor;
      return [i, factorsOf(tensor, ranks === "full" ? [d, h, 4] : [d / 2, h / 2, 2])];
    });
    const rewritten = factored(model, new Map(factors), execution.cache);
    return new Loaded(await TestSession.load(rewritten.model), rewritten.feeds, rewritten.sizes);
  }
}

/** A read export. */
export interface OpenedArchitecture {
  readonly model: OnnxModel;
  readonly blocks: readonly AttentionBlock[];
  readonly skipped: readonly SkippedAttention[];
  /** For every block, the name of the attention in PyTorch. */
  readonly sites: readonly string[];
}

/** A session with the factors it is fed. */
export class Loaded implements AsyncDisposable {
  constructor(
    readonly session: TestSession,
    readonly feeds: Readonly<Record<string, Numbers>>,
    readonly sizes: Readonly<Record<string, number>>,
  ) {}

  /** Runs it; `past` is the cache that it is given. */
  run(inputs: OracleCase["inputs"], past: Readonly<Record<string, Numbers>> = {}): Promise<Record<string, Numbers>> {
    return this.session.run(inputs, { ...this.feeds, ...past }, this.sizes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** Names of the models that are here. */
export function architectures(): string[] {
  return [...Deno.readDirSync(ARCHITECTURES)].filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();
}

/**
 * Hidden states of a model of one file: full ranks give PyTorch's to 1e-4, half ranks, factored and dense, to 1e-3 of their
 * largest value.
 */
export async function checkEncoder(architecture: Architecture, opened: OpenedArchitecture): Promise<void> {
  for (const ranks of ["full", "half"] as const) {
    for (const execution of ["dense", { cache: "full" }] as const) {
      await using loaded = await architecture.load(opened, ranks, execution);
      for (const entry of architecture.reference.cases) {
        const outputs = ranks === "full" ? entry.outputs : architecture.halved(entry);
        const expected = nestedNumbers(outputs["last_hidden_state"] ?? outputs["encoder_last_hidden_state"]!);
        const { last_hidden_state: hidden } = await loaded.run(entry.inputs);
        assertNear(hidden!.data, expected, {
          atol: ranks === "full" ? 1e-4 : 1e-3 * largestValue(expected),
          rtol: 0,
          what: `${architecture.name} ${entry.name}, ${ranks} ranks, ${JSON.stringify(execution)}`,
        });
      }
    }
  }
}

/** Logits of a decoder in two files, to the same tolerances, one token at a time through the cache from the first to the second. */
export async function checkDecoder(
  architecture: Architecture,
  [first, later]: readonly [OpenedArchitecture, OpenedArchitecture],
): Promise<void> {
  for (const ranks of ["full", "half"] as const) {
    for (const execution of ["dense", { cache: "full" }, { cache: "compressed" }, { cache: "latent" }] as const) {
      await using starts = await architecture.load(first, ranks, execution);
      await using goesOn = await architecture.load(later, ranks, execution);
      for (const entry of architecture.reference.cases) {
        const expected = ranks === "full" ? entry.outputs : architecture.halved(entry);
        const { attention_mask, decoder_input_ids } = entry.inputs;
        const decoding = new Decoding(starts, goesOn, {
          ...(attention_mask === undefined ? {} : { encoder_attention_mask: attention_mask }),
          encoder_hidden_states: expected["encoder_last_hidden_state"]!,
        });
        const logits = expected["logits"] as readonly (readonly (readonly number[])[])[];
        const steps = await decoding.steps(decoder_input_ids as readonly (readonly number[])[]);
        for (const [t, actual] of steps.entries()) {
          assertNear(actual, logits.flatMap((row) => row[t]!), {
            atol: ranks === "full" ? 1e-4 : 1e-3 * largestValue(nestedNumbers(logits)),
            rtol: 0,
            what: `${architecture.name} ${entry.name} token ${t}, ${ranks} ranks, ${JSON.stringify(execution)}`,
          });
        }
      }
    }
  }
}
