/**
 * Decoders with rotary embeddings, with random weights: what models and exporters do to keys, one thing at a time.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { GraphWriter } from "./graph_writer.ts";
import type { Nested } from "./oracle.ts";
import { type Rotation, Rotations } from "./rotations.ts";

/** Hidden size, query heads, key and value heads, head size. */
export const [D, H, G, SIZE] = [24, 4, 2, 8];

/** So large beside the mean of squares that it shows where it is left out. */
const EPSILON = 0.05;

/** What a decoder does to its keys. */
export interface RotaryDecoder extends Rotation {
  /** Base of the angles of each layer. */
  readonly thetas: readonly number[];
  /** Names of the numbers of past positions of each layer, where they differ. */
  readonly pasts?: readonly string[];
  /** Keys have a bias. */
  readonly bias?: true;
  /** Keys are divided by √h instead of scores. */
  readonly scaledKeys?: true;
  /** Scores come from ONNX Runtime's product with a scale and a transposition of its own. */
  readonly fusedProduct?: true;
  /** Keys are normed before they are rotated: in plain operators, about their mean or not, or by an operator. */
  readonly norm?: "plain" | "centred" | "LayerNormalization" | "SimplifiedLayerNormalization";
  /** Heads have gains and shifts of their own, are normed one by one, or all together before they are split, or half of each with halves of others; otherwise all alike. */
  readonly normOf?: "own gains" | "each head" | "all heads" | "halves of heads";
  /** Numbers of every key head are scaled by their own. */
  readonly gains?: true;
  /** Heads that are normed one by one have different numbers under the root. */
  readonly unlike?: true;
  /** Keys are halved before they are normed. */
  readonly halved?: true;
  /** Everything in float16 but angles and scores. */
  readonly half?: true;
  /** Something else is done to keys, so that they can't be made from z and coefficients. */
  readonly otherwise?:
    | "norm"
    | "all positions"
    | "window"
    | "per head"
    | "squared"
    | "given out unrotated"
    | "added to its norm"
    | "shifted behind a coefficient";
  /** All layers have the same matrices. */
  readonly shared?: true;
  /** What is added under the norm's root in each layer. */
  readonly epsilons?: readonly number[];
}

/**
 * A model of as many layers as thetas. Inputs: `x` [batch, tokens, D], `positions` [batch, tokens] or `first` [1], the additive `mask` [batch, 1, tokens, past and
 * tokens] and caches `past_key_values.<layer>.<part>`; outputs `y` and `present.<layer>.<part>`.
 */
export function rotaryDecoder(decoder: RotaryDecoder): OnnxModel {
  const { thetas, pasts, half } = decoder;
  const type = half ? DataType.FLOAT16 : DataType.FLOAT;
  const graph = new Layers(type, decoder);
  let x = "x";
  for (const [layer, theta] of thetas.entries()) x = graph.layer({ layer, theta, x });
  graph.node("Identity", [x], {}, "y");
  const cache = (prefix: string, positions: (layer: number) => string) =>
    thetas.flatMap((_, layer) =>
      ["key", "value"].map((part) =>
        tensorInfo(`${prefix}.${layer}.${part}`, type, ["batch", G, positions(layer), SIZE])
      )
    );
  const stream = (name: string) => tensorInfo(name, type, ["batch", "sequence", D]);
  const proto = create(ModelProtoSchema, {
    irVersion: 10n,
    opsetImport: [{ domain: "", version: decoder.operator?.domain === "" ? 23n : 17n }, {
      domain: "com.microsoft",
      version: 1n,
    }],
    graph: create(GraphProtoSchema, {
      name: "rotary",
      node: graph.nodes,
      initializer: graph.tensors,
      input: [
        stream("x"),
        decoder.operator?.positions === "first"
          ? tensorInfo("first", DataType.INT64, [1])
          : tensorInfo("positions", DataType.INT64, ["batch", "sequence"]),
        tensorInfo("mask", DataType.FLOAT, ["batch", 1, "sequence", "total"]),
        ...cache("past_key_values", (layer) => pasts?.[layer] ?? "past"),
      ],
      output: [stream("y"), ...cache("present", (layer) => pasts === undefined ? "total" : `total.${layer}`)],
    }),
  });
  return { proto, path: "", folder: "" };
}

/** Random hidden states [batch, tokens, D]. */
export function randomStates(batch: number, tokens: number, random: () => number): number[][][] {
  const numbers = (count: number): number[] => Array.from({ length: count }, () => random() - 0.5);
  return Array.from({ length: batch }, () => Array.from({ length: tokens }, () => numbers(D)));
}

/** What the model takes for tokens from `from` to `to` of hidden states of which every row begins with so much padding. */
export function fedTokens(
  states: readonly (readonly (readonly number[])[])[],
  { padding, from, to }: { readonly padding: readonly number[]; readonly from: number; readonly to: number },
): Record<string, Nested> {
  const tokens = Array.from({ length: to - from }, (_, i) => from + i);
  const seen = (count: number, token: number): number[] =>
    Array.from({ length: to }, (_, at) => at > token || at < count ? -1e9 : 0);
  return {
    x: states.map((row) => row.slice(from, to)),
    first: [from],
    positions: padding.map((count) => tokens.map((token) => Math.max(token - count, 0))),
    mask: padding.map((count) => [tokens.map((token) => seen(count, token))]),
  };
}

class Layers extends GraphWriter {
  readonly #decoder: RotaryDecoder;
  readonly #rotations: Rotations;
  readonly #weights = new Map<string, string>();

  constructor(type: number, decoder: RotaryDecoder) {
    super(type);
    this.#decoder = decoder;
    this.#rotations = new Rotations(this, decoder, SIZE);
  }

  /** One layer's result. */
  layer({ layer, theta, x }: { readonly layer: number; readonly theta: number; readonly x: string }): string {
    const { bias, otherwise, rotated, operator } = this.#decoder;
    const heads = (input: string, count: number): string =>
      this.node("Transpose", [this.node("Reshape", [input, this.integers(0, 0, count, SIZE)])], {
        perm: [0n, 2n, 1n, 3n],
      });
    const project = (role: string, count: number): string =>
      this.node("MatMul", [x, this.#weight(role, D, count * SIZE)]);
    const turned = (value: string, count: number, options: { all?: true; by?: string } = {}): string =>
      rotated === 0
        ? value
        : operator === undefined
        ? this.#rotations.written(value, { theta, ...options })
        : this.#rotations.operated(value, { operator, theta, heads: count });
    const turnedHeads = (input: string, count: number): string =>
      operator?.joined ? heads(turned(input, count), count) : turned(heads(input, count), count);
    const query = turnedHeads(project("query", H), H);
    const plain = project("key", G);
    const biased = bias ? this.node("Add", [plain, this.matrix(G * SIZE)]) : plain;
    const own = operator?.joined
      ? biased
      : this.#decoder.normOf === "all heads"
      ? heads(this.#changed(biased, { layer, theta }), G)
      : this.#changed(heads(biased, G), { layer, theta });
    const whole = otherwise === "all positions" || otherwise === "shifted behind a coefficient";
    const fresh = operator?.joined
      ? turnedHeads(own, G)
      : whole
      ? own
      : turned(own, G, otherwise === "per head" ? { by: this.matrix(G, 1, 1) } : {});
    const [pastKey, pastValue] = ["key", "value"].map((part) => `past_key_values.${layer}.${part}`) as [string, string];
    const present = `present.${layer}.key`;
    const past = otherwise === "window" ? this.slice(pastKey, 2, { start: -5 }) : pastKey;
    const cached = this.node(
      "Concat",
      [past, fresh],
      { axis: 2n },
      otherwise === "given out unrotated" ? undefined : present,
    );
    if (otherwise === "given out unrotated") this.node("Concat", [pastKey, own], { axis: 2n }, present);
    const keys = otherwise === "all positions" ? turned(cached, G, { all: true }) : cached;
    const values = this.node(
      "Concat",
      [pastValue, heads(project("value", G), G)],
      { axis: 2n },
      `present.${layer}.value`,
    );
    const repeated = (value: string): string => {
      const groups = this.node("Unsqueeze", [value, this.integers(2)]);
      const tiled = this.node("Tile", [groups, this.integers(1, 1, H / G, 1, 1)]);
      return this.node("Reshape", [tiled, this.integers(0, H, -1, SIZE)]);
    };
    const scores = this.#scores(query, repeated(keys));
    const mask = otherwise === "window" ? this.slice("mask", 3, { start: -6 }) : "mask";
    const softmax = this.node("Softmax", [this.node("Add", [scores, mask])], { axis: -1n });
    const weights = this.type === DataType.FLOAT ? softmax : this.cast(softmax, this.type);
    const seen = repeated(otherwise === "window" ? this.slice(values, 2, { start: -6 }) : values);
    const context = this.node("Transpose", [this.node("MatMul", [weights, seen])], { perm: [0n, 2n, 1n, 3n] });
    const merged = this.node("Reshape", [context, this.integers(0, 0, H * SIZE)]);
    return this.node("Add", [x, this.node("MatMul", [merged, this.#weight("output", H * SIZE, D)])]);
  }

  /** What is done to key heads [B, G, T, h], or [B, T, G · h], before they are rotated. */
  #changed(heads: string, { layer, theta }: { readonly layer: number; readonly theta: number }): string {
    const { norm, normOf, gains, unlike, otherwise, epsilons } = this.#decoder;
    const epsilon = epsilons?.[layer] ?? EPSILON;
    if (norm !== undefined && normOf === "each head") {
      const one = (head: number): string =>
        this.#normed(this.slice(heads, 1, { start: head, end: head + 1 }), {
          norm,
          epsilon: unlike ? epsilon * (head + 1) : epsilon,
          gains: `gain ${head}`,
        });
      return this.node("Concat", Array.from({ length: G }, (_, head) => one(head)), { axis: 1n });
    }
    if (norm !== undefined && normOf === "halves of heads") {
      const swapped = (value: string): string => {
        const halves = this.node("Reshape", [value, this.integers(0, G, -1, 2, SIZE / 2)]);
        const across = this.node("Transpose", [halves], { perm: [0n, 3n, 2n, 1n, 4n] });
        return this.node("Reshape", [across, this.integers(0, 2, -1, SIZE)]);
      };
      return swapped(this.#normed(swapped(heads), { norm, epsilon }));
    }
    if (norm !== undefined) return this.#normed(heads, { norm, epsilon });
    if (gains) return this.node("Mul", [heads, this.matrix(G, 1, SIZE)]);
    switch (otherwise) {
      case "added to its norm":
        return this.node("Add", [this.#normed(heads, { norm: "plain", epsilon }), heads]);
      case "shifted behind a coefficient":
        return this.node("Add", [
          this.node("Mul", [heads, this.#rotations.coefficients(theta, false)[0]!]),
          this.matrix(SIZE),
        ]);
      case "norm":
        return this.node("Div", [heads, this.node("ReduceMean", [this.node("Mul", [heads, heads])], { axes: [-1n] })]);
      case "squared":
        return this.node("Pow", [heads, this.scalar(2)]);
      default:
        return heads;
    }
  }

  /** A matrix of one layer, or of all. */
  #weight(role: string, ...shape: readonly number[]): string {
    const known = this.#decoder.shared ? this.#weights.get(role) : undefined;
    const name = known ?? this.matrix(...shape);
    this.#weights.set(role, name);
    return name;
  }

  /** Heads normed in float32, with a gain and, where they are centred, a shift. */
  #normed(
    heads: string,
    { norm, epsilon, gains = "gain" }: {
      readonly norm: NonNullable<RotaryDecoder["norm"]>;
      readonly epsilon: number;
      readonly gains?: string;
    },
  ): string {
    const input = this.#decoder.halved ? this.node("Mul", [heads, this.cast(this.scalar(0.5), this.type)]) : heads;
    const { normOf } = this.#decoder;
    const shape = normOf === "own gains" ? [G, 1, SIZE] : [normOf === "all heads" ? G * SIZE : SIZE];
    const [gain, shift] = [gains, `shift of ${gains}`].map((role) => this.#weight(role, ...shape)) as [string, string];
    if (norm === "LayerNormalization") {
      return this.node(norm, [input, gain, shift], { axis: -1n, epsilon });
    }
    if (norm === "SimplifiedLayerNormalization") {
      return this.node(norm, [input, gain], { axis: -1n, epsilon });
    }
    const full = this.cast(input, DataType.FLOAT);
    // From opset 18 on axes are an input.
    const mean = (value: string): string =>
      this.#decoder.operator?.domain === ""
        ? this.node("ReduceMean", [value, this.integers(-1)])
        : this.node("ReduceMean", [value], { axes: [-1n] });
    const numbers = norm === "centred" ? this.node("Sub", [full, mean(full)]) : full;
    const square = this.node("Pow", [numbers, this.scalar(2)]);
    const root = this.node("Sqrt", [this.node("Add", [mean(square), this.scalar(epsilon)])]);
    const divided = norm === "centred"
      ? this.node("Div", [numbers, root])
      : this.node("Mul", [numbers, this.node("Div", [this.scalar(1), root])]);
    const scaled = this.node("Mul", [gain, this.cast(divided, this.type)]);
    return norm === "centred" ? this.node("Add", [scaled, shift]) : scaled;
  }

  /** Products of queries and keys, in float32, with the scale. */
  #scores(query: string, keys: string): string {
    const { scaledKeys, fusedProduct, half } = this.#decoder;
    const [q, k] = half
      ? [query, keys].map((value) => this.cast(value, DataType.FLOAT)) as [string, string]
      : [query, keys];
    const alpha = 1 / Math.sqrt(SIZE);
    if (fusedProduct) return this.node("FusedMatMul", [q, k], { alpha, transB: 1n });
    const scale = this.scalar(alpha);
    const across = this.node("Transpose", [k], { perm: [0n, 1n, 3n, 2n] });
    if (scaledKeys) return this.node("MatMul", [q, this.node("Mul", [across, scale])]);
    return this.node("Mul", [this.node("MatMul", [q, across]), scale]);
  }
}
