/**
 * A decoder of given sizes with random weights, for benchmarks: the graph is that of GPT-2 with past as PyTorch exports it (norms before,
 * packed projection and Split, caches [batch, heads, positions, head size]), from hidden states on; with rotary embeddings, if asked for.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { Builder, type SyntheticModel } from "./synthetic_model.ts";

/** Names of a layer's cache: what the graph takes and what it gives. */
export function cacheNames(layer: number): { readonly past: [string, string]; readonly present: [string, string] } {
  const names = (of: string): [string, string] => [`${of}.${layer}.key`, `${of}.${layer}.value`];
  return { past: names("past_key_values"), present: names("present") };
}

/** Sizes of a decoder. */
export interface SyntheticDecoder extends SyntheticModel {
  /** How many of a head's numbers are rotated, in halves; none without it. */
  readonly rotated?: number;
}

/**
 * Inputs: `hidden` [batch, tokens, d], the additive `mask` [batch, 1, tokens, past and tokens], the caches of `cacheNames`, and with rotary
 * embeddings `positions` [batch, tokens]; outputs: `output` [batch, tokens, d] and the grown caches.
 */
export function syntheticDecoder({ rotated = 0, ...sizes }: SyntheticDecoder): OnnxModel {
  const builder = new Builder(sizes, undefined);
  const { heads, headSize, hiddenSize, layers } = sizes;
  builder.integers("split_shape", [0, 0, heads, headSize]);
  builder.integers("merge_shape", [0, 0, heads * headSize]);
  builder.scalars();
  if (rotated > 0) coefficients(builder, rotated);
  let hidden = "hidden";
  for (let layer = 0; layer < layers; layer++) {
    const name = `layer.${layer}`;
    const attended = attention(builder, builder.normalize(hidden, `${name}.norm1`), { layer, rotated });
    hidden = builder.node("Add", [attended, hidden], `${name}/Add`);
    const fed = builder.feedForward(builder.normalize(hidden, `${name}.norm2`), `${name}.ffn`);
    hidden = builder.node("Add", [fed, hidden], `${name}/Add2`);
  }
  builder.node("Identity", [hidden], "output");
  const caches = Array.from({ length: layers }, (_, layer) => cacheNames(layer));
  const cache = (positions: string) => (name: string) =>
    tensorInfo(name, DataType.FLOAT, ["batch", heads, positions, headSize]);
  const stream = (name: string) => tensorInfo(name, DataType.FLOAT, ["batch", "tokens", hiddenSize]);
  const proto = create(ModelProtoSchema, {
    irVersion: 8n,
    producerName: "tuckerd",
    opsetImport: [{ domain: "", version: 17n }],
    graph: create(GraphProtoSchema, {
      name: "synthetic",
      node: builder.nodes,
      initializer: builder.initializers,
      input: [
        stream("hidden"),
        tensorInfo("mask", DataType.FLOAT, ["batch", 1, "tokens", "all"]),
        ...rotated > 0 ? [tensorInfo("positions", DataType.INT64, ["batch", "tokens"])] : [],
        ...caches.flatMap(({ past }) => past).map(cache("past")),
      ],
      output: [stream("output"), ...caches.flatMap(({ present }) => present).map(cache("all"))],
    }),
  });
  return { proto, path: "", folder: "" };
}

/** `cos` and `sin` of the positions, [batch, 1, tokens, rotated]. */
function coefficients(builder: Builder, rotated: number): void {
  builder.integers("one_axis", [1]);
  builder.integers("last_axis", [-1]);
  const frequencies = Float32Array.from({ length: rotated }, (_, i) => 10000 ** (-2 * (i % (rotated / 2)) / rotated));
  builder.initializers.push(floatTensor("frequencies", [rotated], frequencies));
  const numbers = builder.node("Cast", ["positions"], "positions/Cast", { to: BigInt(DataType.FLOAT) });
  const angles = builder.node("Mul", [
    builder.node("Unsqueeze", [numbers, "last_axis"], "positions/Unsqueeze"),
    "frequencies",
  ], "angles");
  for (const opType of ["Cos", "Sin"]) {
    builder.node("Unsqueeze", [builder.node(opType, [angles], `angles/${opType}`), "one_axis"], opType.toLowerCase());
  }
}

/** Heads with their first numbers rotated: x cos + (−x₂, x₁) sin, in halves. */
function rotate(builder: Builder, heads: string, rotated: number): string {
  const { headSize } = builder.sizes;
  const cut = (from: string, sizes: readonly number[]): string[] => {
    const parts = sizes.map((_, i) => `${from}/part${i}`);
    const split = builder.integers(`${from}/sizes`, sizes);
    builder.nodes.push(makeNode("Split", [from, split], parts, { attributes: { axis: -1n } }));
    return parts;
  };
  const [turning, rest] = rotated < headSize ? cut(heads, [rotated, headSize - rotated]) : [heads];
  const [first, second] = cut(turning!, [rotated / 2, rotated / 2]);
  const negative = builder.node("Neg", [second!], `${heads}/Neg`);
  const other = builder.node("Concat", [negative, first!], `${heads}/other`, { axis: -1n });
  const terms = [[turning!, "cos"], [other, "sin"]].map((pair) => builder.node("Mul", pair, `${heads}/${pair[1]}`));
  const turned = builder.node("Add", terms, `${heads}/turned`);
  return rest === undefined ? turned : builder.node("Concat", [turned, rest], `${heads}/rotated`, { axis: -1n });
}

function attention(
  builder: Builder,
  input: string,
  { layer, rotated }: { readonly layer: number; readonly rotated: number },
): string {
  const { hiddenSize, heads, headSize } = builder.sizes;
  const name = `layer.${layer}.attention`;
  const width = heads * headSize;
  const packed = builder.linear(input, `${name}.qkv`, [hiddenSize, 3 * width]);
  const parts = ["query", "key", "value"].map((part) => `${name}.${part}`);
  builder.nodes.push(makeNode("Split", [packed], parts, { attributes: { axis: -1n } }));
  const [query, key, value] = parts.map((part, i) => {
    const shaped = builder.node("Reshape", [part, "split_shape"], `${part}/Reshape`);
    const heads = builder.node("Transpose", [shaped], `${part}/Transpose`, { perm: [0n, 2n, 1n, 3n] });
    return rotated > 0 && i < 2 ? rotate(builder, heads, rotated) : heads;
  }) as [string, string, string];
  const { past, present } = cacheNames(layer);
  const [keys, values] = [key, value].map((fresh, i) =>
    builder.node("Concat", [past[i]!, fresh], present[i]!, { axis: 2n })
  ) as [string, string];
  const across = builder.node("Transpose", [keys], `${name}/across`, { perm: [0n, 1n, 3n, 2n] });
  const scaled = builder.node(
    "Div",
    [builder.node("MatMul", [query, across], `${name}/scores`), "scale"],
    `${name}/scaled`,
  );
  const masked = builder.node("Add", [scaled, "mask"], `${name}/masked`);
  const probabilities = builder.node("Softmax", [masked], `${name}/Softmax`, { axis: -1n });
  const context = builder.node("MatMul", [probabilities, values], `${name}/context`);
  const transposed = builder.node("Transpose", [context], `${name}/Transpose`, { perm: [0n, 2n, 1n, 3n] });
  const merged = builder.node("Reshape", [transposed, "merge_shape"], `${name}/merged`);
  return builder.linear(merged, `${name}.output`, [width, hiddenSize]);
}
