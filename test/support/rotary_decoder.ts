/**
 * Decoders with rotary embeddings in plain operators, with random weights: what models and exporters do to keys, one thing at a time.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import type { Nested } from "./oracle.ts";
import { seeded } from "./random_tucker.ts";

/** Hidden size, query heads, key and value heads, head size. */
export const [D, H, G, SIZE] = [24, 4, 2, 8];

/** So large beside the mean of squares that it shows where it is left out. */
const EPSILON = 0.05;

/** What a decoder does to its keys. */
export interface RotaryDecoder {
  /** Base of the angles of each layer. */
  readonly thetas: readonly number[];
  /** Names of the numbers of past positions of each layer, where they differ. */
  readonly pasts?: readonly string[];
  /** How many of a head's numbers are rotated. */
  readonly rotated: number;
  /** Pairs are neighbours (GPT-J) instead of one number of each half (NeoX, Llama). */
  readonly interleaved?: true;
  /** Keys have a bias. */
  readonly bias?: true;
  /** Cosines and sines are the same for all rows: counted from the past, instead of taken from `positions`. */
  readonly counted?: true;
  /** Angles grow slower the longer the whole sequence is at the time of the call, as with dynamic NTK scaling. */
  readonly dynamic?: true;
  /** Keys are divided by √h instead of scores. */
  readonly scaledKeys?: true;
  /** The terms of the rotation are summed the other way round. */
  readonly flipped?: true;
  /** Scores come from ONNX Runtime's product with a scale and a transposition of its own. */
  readonly fusedProduct?: true;
  /** Keys are normed before they are rotated: in plain operators, about their mean or not, or by an operator. */
  readonly norm?: "plain" | "centred" | "LayerNormalization" | "SimplifiedLayerNormalization";
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
 * A model of as many layers as thetas. Inputs: `x` [batch, tokens, D], `positions` [batch, tokens], the additive `mask` [batch, 1, tokens, past and
 * tokens] and caches `past_key_values.<layer>.<part>`; outputs `y` and `present.<layer>.<part>`.
 */
export function rotaryDecoder(decoder: RotaryDecoder): OnnxModel {
  const { thetas, pasts, half } = decoder;
  const type = half ? DataType.FLOAT16 : DataType.FLOAT;
  const graph = new Writer(type);
  let x = "x";
  for (const [layer, theta] of thetas.entries()) x = graph.layer(decoder, { layer, theta, x });
  graph.node("Identity", [x], {}, "y");
  const cache = (prefix: string, positions: (layer: number) => string) =>
    thetas.flatMap((_, layer) =>
      ["key", "value"].map((part) =>
        tensorInfo(`${prefix}.${layer}.${part}`, type, ["batch", G, positions(layer), SIZE])
      )
    );
  const stream = (name: string) => tensorInfo(name, type, ["batch", "sequence", D]);
  const proto = create(ModelProtoSchema, {
    irVersion: 8n,
    opsetImport: [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }],
    graph: create(GraphProtoSchema, {
      name: "rotary",
      node: graph.nodes,
      initializer: graph.tensors,
      input: [
        stream("x"),
        tensorInfo("positions", DataType.INT64, ["batch", "sequence"]),
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
    positions: padding.map((count) => tokens.map((token) => Math.max(token - count, 0))),
    mask: padding.map((count) => [tokens.map((token) => seen(count, token))]),
  };
}

class Writer {
  readonly nodes: NodeProto[] = [];
  readonly tensors: TensorProto[] = [];
  readonly #random = seeded(5);
  readonly #weights = new Map<string, string>();
  #count = 0;

  /** @param type of weights and streams */
  constructor(readonly type: number) {}

  node(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    output = `v${this.#count++}`,
  ): string {
    const domain = opType === "FusedMatMul" ? "com.microsoft" : "";
    this.nodes.push(makeNode(opType, inputs, [output], { name: `${opType}.${output}`, domain, attributes }));
    return output;
  }

  integers(...values: readonly number[]): string {
    const name = `c${this.#count++}`;
    this.tensors.push(int64Tensor(name, values));
    return name;
  }

  scalar(value: number): string {
    return this.#tensor([], Float32Array.of(value), DataType.FLOAT);
  }

  cast(value: string, to: number): string {
    return this.node("Cast", [value], { to: BigInt(to) });
  }

  matrix(...shape: readonly number[]): string {
    const size = shape.reduce((a, b) => a * b);
    return this.#tensor(shape, Float32Array.from({ length: size }, () => this.#random() - 0.5), this.type);
  }

  slice(value: string, axis: number, { start = 0, end = Number.MAX_SAFE_INTEGER, step = 1 }): string {
    return this.node("Slice", [value, ...[start, end, axis, step].map((number) => this.integers(number))]);
  }

  layer(
    decoder: RotaryDecoder,
    { layer, theta, x }: { readonly layer: number; readonly theta: number; readonly x: string },
  ): string {
    const { bias, otherwise } = decoder;
    const heads = (input: string, count: number): string =>
      this.node("Transpose", [this.node("Reshape", [input, this.integers(0, 0, count, SIZE)])], {
        perm: [0n, 2n, 1n, 3n],
      });
    const project = (role: string, count: number): string =>
      this.node("MatMul", [x, this.#weight(decoder, role, D, count * SIZE)]);
    const turned = (value: string, all: boolean): string =>
      this.rotate(decoder, { value, theta, all, perHead: otherwise === "per head" });
    const query = this.rotate(decoder, { value: heads(project("query", H), H), theta, all: false, perHead: false });
    const plain = project("key", G);
    const biased = bias ? this.node("Add", [plain, this.matrix(G * SIZE)]) : plain;
    const split = heads(biased, G);
    const epsilon = decoder.epsilons?.[layer] ?? EPSILON;
    const own = decoder.norm !== undefined
      ? this.#normed(decoder, split, epsilon)
      : otherwise === "added to its norm"
      ? this.node("Add", [this.#normed({ ...decoder, norm: "plain" }, split, epsilon), split])
      : otherwise === "shifted behind a coefficient"
      ? this.node("Add", [
        this.node("Mul", [split, this.#coefficients(decoder, { theta, all: false })[0]!]),
        this.matrix(SIZE),
      ])
      : otherwise === "norm"
      ? this.node("Div", [split, this.node("ReduceMean", [this.node("Mul", [split, split])], { axes: [-1n] })])
      : otherwise === "squared"
      ? this.node("Pow", [split, this.scalar(2)])
      : split;
    const whole = otherwise === "all positions" || otherwise === "shifted behind a coefficient";
    const fresh = whole ? own : turned(own, false);
    const [pastKey, pastValue] = ["key", "value"].map((part) => `past_key_values.${layer}.${part}`) as [string, string];
    const present = `present.${layer}.key`;
    const past = otherwise === "window" ? this.slice(pastKey, 2, { start: -5 }) : pastKey;
    const joined = this.node(
      "Concat",
      [past, fresh],
      { axis: 2n },
      otherwise === "given out unrotated" ? undefined : present,
    );
    if (otherwise === "given out unrotated") this.node("Concat", [pastKey, own], { axis: 2n }, present);
    const keys = otherwise === "all positions" ? turned(joined, true) : joined;
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
    const scores = this.#scores(decoder, query, repeated(keys));
    const mask = otherwise === "window" ? this.slice("mask", 3, { start: -6 }) : "mask";
    const softmax = this.node("Softmax", [this.node("Add", [scores, mask])], { axis: -1n });
    const weights = this.type === DataType.FLOAT ? softmax : this.cast(softmax, this.type);
    const seen = repeated(otherwise === "window" ? this.slice(values, 2, { start: -6 }) : values);
    const context = this.node("Transpose", [this.node("MatMul", [weights, seen])], { perm: [0n, 2n, 1n, 3n] });
    const merged = this.node("Reshape", [context, this.integers(0, 0, H * SIZE)]);
    return this.node("Add", [x, this.node("MatMul", [merged, this.#weight(decoder, "output", H * SIZE, D)])]);
  }

  /** A matrix of one layer, or of all. */
  #weight({ shared }: RotaryDecoder, role: string, ...shape: readonly number[]): string {
    const known = shared ? this.#weights.get(role) : undefined;
    const name = known ?? this.matrix(...shape);
    this.#weights.set(role, name);
    return name;
  }

  /** Heads normed in float32, with a gain and, where they are centred, a shift. */
  #normed(decoder: RotaryDecoder, heads: string, epsilon: number): string {
    const { norm, halved } = decoder;
    const input = halved ? this.node("Mul", [heads, this.cast(this.scalar(0.5), this.type)]) : heads;
    const [gain, shift] = ["gain", "shift"].map((role) => this.#weight(decoder, role, SIZE)) as [string, string];
    if (norm === "LayerNormalization") {
      return this.node(norm, [input, gain, shift], { axis: -1n, epsilon });
    }
    if (norm === "SimplifiedLayerNormalization") {
      return this.node(norm, [input, gain], { axis: -1n, epsilon });
    }
    const full = this.cast(input, DataType.FLOAT);
    const mean = (value: string): string => this.node("ReduceMean", [value], { axes: [-1n] });
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
  #scores({ scaledKeys, fusedProduct, half }: RotaryDecoder, query: string, keys: string): string {
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

  /** Rotates the first numbers of all heads, [B, ·, T, h]. */
  rotate(
    decoder: RotaryDecoder,
    { value, theta, all, perHead }: {
      readonly value: string;
      readonly theta: number;
      readonly all: boolean;
      readonly perHead: boolean;
    },
  ): string {
    const { rotated, interleaved, flipped } = decoder;
    if (rotated === 0) return value;
    const [cos, sin] = this.#coefficients(decoder, { theta, all }).map((each) =>
      perHead ? this.node("Mul", [each, this.matrix(G, 1, 1)]) : each
    ) as [string, string];
    const turning = rotated === SIZE ? value : this.slice(value, -1, { end: rotated });
    const other = interleaved ? this.#neighbours(turning, rotated) : this.#halves(turning, rotated);
    const terms = [this.node("Mul", [turning, cos]), this.node("Mul", [other, sin])];
    const sum = this.node("Add", flipped ? terms.toReversed() : terms);
    return rotated === SIZE
      ? sum
      : this.node("Concat", [sum, this.slice(value, -1, { start: rotated })], { axis: -1n });
  }

  /** (−x₂, x₁) of the two halves. */
  #halves(value: string, rotated: number): string {
    const [first, second] = [{ end: rotated / 2 }, { start: rotated / 2 }].map((part) => this.slice(value, -1, part));
    return this.node("Concat", [this.node("Neg", [second!]), first!], { axis: -1n });
  }

  /** (−x₂, x₁) of each pair of neighbours. */
  #neighbours(value: string, rotated: number): string {
    const [even, odd] = [0, 1].map((start) =>
      this.node("Unsqueeze", [this.slice(value, -1, { start, step: 2 }), this.integers(-1)])
    );
    const pairs = this.node("Concat", [this.node("Neg", [odd!]), even!], { axis: -1n });
    return this.node("Reshape", [pairs, this.integers(0, 0, 0, rotated)]);
  }

  /** Cosines and sines, [B or 1, 1, T, rotated]. */
  #coefficients(
    { rotated, interleaved, counted, dynamic }: RotaryDecoder,
    { theta, all }: { readonly theta: number; readonly all: boolean },
  ): string[] {
    const half = rotated / 2;
    const frequencies = this.#tensor(
      [1, 1, half],
      Float32Array.from({ length: half }, (_, i) => theta ** (-i / half)),
      DataType.FLOAT,
    );
    const total = this.node("Gather", [this.node("Shape", ["mask"]), this.integers(3)]);
    const positions = all || counted
      ? this.#counted(total, all)
      : this.node("Unsqueeze", ["positions", this.integers(-1)]);
    const numbers = this.cast(positions, DataType.FLOAT);
    const slower = this.node("Add", [
      this.node("Mul", [this.cast(total, DataType.FLOAT), this.scalar(0.1)]),
      this.scalar(1),
    ]);
    const angles = this.node("Mul", [dynamic ? this.node("Div", [numbers, slower]) : numbers, frequencies]);
    const doubled = interleaved
      ? this.node("Reshape", [
        this.node("Tile", [this.node("Unsqueeze", [angles, this.integers(-1)]), this.integers(1, 1, 1, 2)]),
        this.integers(0, 0, rotated),
      ])
      : this.node("Concat", [angles, angles], { axis: -1n });
    return ["Cos", "Sin"].map((opType) => {
      const numbers = this.node("Unsqueeze", [this.node(opType, [doubled]), this.integers(1)]);
      return this.type === DataType.FLOAT ? numbers : this.cast(numbers, this.type);
    });
  }

  /** The positions of new tokens, or of all, [1, ·, 1]. */
  #counted(total: string, all: boolean): string {
    const squeezed = this.node("Squeeze", [total, this.integers(0)]);
    const tokens = this.node("Squeeze", [
      this.node("Gather", [this.node("Shape", ["x"]), this.integers(1)]),
      this.integers(0),
    ]);
    const [zero, one] = [0, 1].map((number) => this.node("Squeeze", [this.integers(number), this.integers(0)]));
    const start = all ? zero! : this.node("Sub", [squeezed, tokens]);
    return this.node("Unsqueeze", [this.node("Range", [start, squeezed, one!]), this.integers(0, 2)]);
  }

  #tensor(shape: readonly number[], values: Float32Array, type: number): string {
    const name = `c${this.#count++}`;
    this.tensors.push(floatTensor(name, shape, values, type));
    return name;
  }
}
