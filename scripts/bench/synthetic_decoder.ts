/**
 * A decoder of given sizes with random weights, for benchmarks: the graph is that of GPT-2 with past as PyTorch exports it (norms before,
 * packed projection and Split, caches [batch, heads, positions, head size]), from hidden states on.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { Builder, type SyntheticModel } from "./synthetic_model.ts";

/** Names of a layer's cache: what the graph takes and what it gives. */
export function cacheNames(layer: number): { readonly past: [string, string]; readonly present: [string, string] } {
  const names = (of: string): [string, string] => [`${of}.${layer}.key`, `${of}.${layer}.value`];
  return { past: names("past_key_values"), present: names("present") };
}

/**
 * Inputs: `hidden` [batch, tokens, d], the additive `mask` [batch, 1, tokens, past and tokens] and the caches of `cacheNames`; outputs:
 * `output` [batch, tokens, d] and the grown caches.
 */
export function syntheticDecoder(sizes: SyntheticModel): OnnxModel {
  const builder = new Builder(sizes, undefined);
  const { heads, headSize, hiddenSize, layers } = sizes;
  builder.integers("split_shape", [0, 0, heads, headSize]);
  builder.integers("merge_shape", [0, 0, heads * headSize]);
  builder.scalars();
  let hidden = "hidden";
  for (let layer = 0; layer < layers; layer++) {
    const name = `layer.${layer}`;
    const attended = attention(builder, builder.normalize(hidden, `${name}.norm1`), layer);
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
        ...caches.flatMap(({ past }) => past).map(cache("past")),
      ],
      output: [stream("output"), ...caches.flatMap(({ present }) => present).map(cache("all"))],
    }),
  });
  return { proto, path: "", folder: "" };
}

function attention(builder: Builder, input: string, layer: number): string {
  const { hiddenSize, heads, headSize } = builder.sizes;
  const name = `layer.${layer}.attention`;
  const width = heads * headSize;
  const packed = builder.linear(input, `${name}.qkv`, [hiddenSize, 3 * width]);
  const parts = ["query", "key", "value"].map((part) => `${name}.${part}`);
  builder.nodes.push(makeNode("Split", [packed], parts, { attributes: { axis: -1n } }));
  const [query, key, value] = parts.map((part) => {
    const shaped = builder.node("Reshape", [part, "split_shape"], `${part}/Reshape`);
    return builder.node("Transpose", [shaped], `${part}/Transpose`, { perm: [0n, 2n, 1n, 3n] });
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
