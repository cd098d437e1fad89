/**
 * Transformers of given sizes with random weights, written as ONNX: for benchmarks whose models can't be shipped. The graph is that of
 * a BERT encoder as PyTorch exports it (opset 17), from hidden states on.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import {
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
} from "../../src/onnx/gen/onnx_pb.ts";
import { encodeModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";

/** Sizes of a model. */
export interface SyntheticModel {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  readonly headSize: number;
  /** Width of the feed-forward network; 0 for none. */
  readonly feedForward: number;
  /** `float16` weights go to external data, as large models keep them. */
  readonly weights: "float32" | "float16";
}

/** Random numbers by a 32-bit xorshift (Marsaglia 2003): the same model on every machine. */
class Random {
  #state = 0x9e3779b9;

  /** Roughly normal with variance 1/3: the sum of two uniforms, centred. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x | 0;
    return ((x & 0xffff) + (x >>> 16)) / 0xffff - 1;
  }
}

/** Builds nodes and weights layer by layer. */
export class Builder {
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  readonly #random = new Random();
  #offset = 0;

  constructor(readonly sizes: SyntheticModel, readonly data: Deno.FsFile | undefined) {}

  /** Adds a node with one output and returns that. */
  node(
    opType: string,
    inputs: readonly string[],
    output: string,
    attributes: Record<string, bigint | number | bigint[]> = {},
  ): string {
    this.nodes.push(makeNode(opType, inputs, [output], { attributes }));
    return output;
  }

  /** A random weight, scaled so that activations keep their size. */
  weight(name: string, shape: readonly number[]): string {
    const count = shape.reduce((product, size) => product * size, 1);
    const scale = 1 / Math.sqrt(shape[0]!);
    if (this.data === undefined) {
      const values = Float32Array.from({ length: count }, () => this.#random.next() * scale);
      this.initializers.push(floatTensor(name, shape, values));
      return name;
    }
    const values = Float16Array.from({ length: count }, () => this.#random.next() * scale);
    const bytes = new Uint8Array(values.buffer);
    for (let at = 0; at < bytes.length;) at += this.data.writeSync(bytes.subarray(at));
    const place = { location: "model.onnx_data", offset: this.#offset, length: bytes.length };
    this.initializers.push(create(TensorProtoSchema, {
      name,
      dims: shape.map(BigInt),
      dataType: DataType.FLOAT16,
      dataLocation: TensorProto_DataLocation.EXTERNAL,
      externalData: Object.entries(place).map(([key, value]) => ({ key, value: String(value) })),
    }));
    this.#offset += bytes.length;
    return name;
  }

  /** A tensor with the same number everywhere. */
  constant(name: string, shape: readonly number[], value: number): string {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value);
    this.initializers.push(
      floatTensor(name, shape, values, this.data === undefined ? DataType.FLOAT : DataType.FLOAT16),
    );
    return name;
  }

  /** The scalars that `attention` and `feedForward` read. */
  scalars(): void {
    const { headSize } = this.sizes;
    const named = { scale: Math.sqrt(headSize), sqrt2: Math.SQRT2, one: 1, half: 0.5 };
    for (const [name, value] of Object.entries(named)) this.constant(name, [], value);
  }

  /** An int64 list. */
  integers(name: string, values: readonly number[]): string {
    this.initializers.push(int64Tensor(name, values));
    return name;
  }

  /** A linear layer with bias. */
  linear(input: string, name: string, [rows, columns]: readonly [number, number]): string {
    const product = this.node("MatMul", [input, this.weight(`${name}.weight`, [rows, columns])], `${name}/MatMul`);
    return this.node("Add", [this.constant(`${name}.bias`, [columns], 0.01), product], `${name}/Add`);
  }

  /** A layer norm. */
  normalize(input: string, name: string): string {
    const size = [this.sizes.hiddenSize];
    const parameters = [this.constant(`${name}.weight`, size, 1), this.constant(`${name}.bias`, size, 0)];
    return this.node("LayerNormalization", [input, ...parameters], `${name}/Normalized`, { axis: -1n, epsilon: 1e-5 });
  }

  /** BERT's attention. */
  attention(input: string, name: string): string {
    const { hiddenSize, heads, headSize } = this.sizes;
    const width = heads * headSize;
    const split = (part: string, perm: bigint[]): string => {
      const projected = this.linear(input, `${name}.${part}`, [hiddenSize, width]);
      const shaped = this.node("Reshape", [projected, "split_shape"], `${name}.${part}/Reshape`);
      return this.node("Transpose", [shaped], `${name}.${part}/Transpose`, { perm });
    };
    const query = split("query", [0n, 2n, 1n, 3n]);
    const key = split("key", [0n, 2n, 3n, 1n]);
    const value = split("value", [0n, 2n, 1n, 3n]);
    const scores = this.node("MatMul", [query, key], `${name}/scores`);
    const scaled = this.node("Div", [scores, "scale"], `${name}/scaled`);
    const masked = this.node("Add", [scaled, "mask"], `${name}/masked`);
    const probabilities = this.node("Softmax", [masked], `${name}/Softmax`, { axis: -1n });
    const context = this.node("MatMul", [probabilities, value], `${name}/context`);
    const transposed = this.node("Transpose", [context], `${name}/Transpose`, { perm: [0n, 2n, 1n, 3n] });
    const merged = this.node("Reshape", [transposed, "merge_shape"], `${name}/merged`);
    return this.linear(merged, `${name}.output`, [width, hiddenSize]);
  }

  /** Two linear layers with GELU between them. */
  feedForward(input: string, name: string): string {
    const { hiddenSize, feedForward } = this.sizes;
    const up = this.linear(input, `${name}.fc_in`, [hiddenSize, feedForward]);
    const error = this.node("Erf", [this.node("Div", [up, "sqrt2"], `${name}/Div`)], `${name}/Erf`);
    const gate = this.node("Mul", [up, this.node("Add", [error, "one"], `${name}/Add1`)], `${name}/Mul`);
    return this.linear(this.node("Mul", [gate, "half"], `${name}/Gelu`), `${name}.fc_out`, [feedForward, hiddenSize]);
  }
}

/**
 * Writes `model.onnx` (and `model.onnx_data` with float16 weights) into a folder. Inputs: `hidden` [batch, tokens, d] and the additive
 * `mask` [batch, 1, 1, tokens]; output: `output` [batch, tokens, d].
 */
export async function writeSyntheticModel(folder: string, sizes: SyntheticModel): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const half = sizes.weights === "float16";
  using data = half
    ? await Deno.open(`${folder}/model.onnx_data`, { write: true, create: true, truncate: true })
    : undefined;
  const builder = new Builder(sizes, data);
  const width = sizes.heads * sizes.headSize;
  builder.integers("split_shape", [0, 0, sizes.heads, sizes.headSize]);
  builder.integers("merge_shape", [0, 0, width]);
  builder.scalars();
  let hidden = "hidden";
  for (let layer = 0; layer < sizes.layers; layer++) {
    const name = `layer.${layer}`;
    const attended = builder.node("Add", [builder.attention(hidden, `${name}.attention`), hidden], `${name}/Add`);
    hidden = builder.normalize(attended, `${name}.norm1`);
    if (sizes.feedForward === 0) continue;
    const added = builder.node("Add", [builder.feedForward(hidden, `${name}.ffn`), hidden], `${name}/Add2`);
    hidden = builder.normalize(added, `${name}.norm2`);
  }
  builder.node("Identity", [hidden], "output");
  const type = half ? DataType.FLOAT16 : DataType.FLOAT;
  const proto = create(ModelProtoSchema, {
    irVersion: 8n,
    producerName: "tuckerd",
    opsetImport: [{ domain: "", version: 17n }],
    graph: create(GraphProtoSchema, {
      name: "synthetic",
      node: builder.nodes,
      initializer: builder.initializers,
      input: [
        tensorInfo("hidden", type, ["batch", "tokens", sizes.hiddenSize]),
        tensorInfo("mask", type, ["batch", 1, 1, "tokens"]),
      ],
      output: [tensorInfo("output", type, ["batch", "tokens", sizes.hiddenSize])],
    }),
  });
  await Deno.writeFile(`${folder}/model.onnx`, encodeModel({ proto, path: `${folder}/model.onnx`, folder }));
  await Deno.writeTextFile(`${folder}/config.json`, `{"model_type": "synthetic", "architectures": ["Synthetic"]}\n`);
}
