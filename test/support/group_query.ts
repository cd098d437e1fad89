/**
 * Models of com.microsoft.GroupQueryAttention with random weights and any of its options.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { inOrder } from "../../src/onnx/order.ts";
import { DataType, floatTensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { GraphWriter } from "./graph_writer.ts";
import { integer, type Random } from "./random.ts";
import { Rotations } from "./rotations.ts";

/** Hidden size, query heads, layers, positions of the rotation's tables. */
export const [D, H, LAYERS, TABLE] = [24, 4, 2, 32];

/** What an operator is asked to do. */
export interface GroupQueryOptions {
  readonly groups: number;
  readonly headSize: number;
  readonly half: boolean;
  /** Query, key and value come in one operand. */
  readonly packed: boolean;
  /** Whether query, key and value have biases. */
  readonly biased: boolean;
  /** What the projections give is multiplied by numbers before the operator. */
  readonly multiplied: boolean;
  /** What norms heads of keys before all else. */
  readonly normed: "LayerNormalization" | "SimplifiedLayerNormalization" | undefined;
  /** Numbers of each head that are rotated; 0 for none. */
  readonly rotated: number;
  readonly interleaved: boolean;
  /** What rotates queries and keys in the operator's place: an operator RotaryEmbedding of a domain, or plain ones. */
  readonly before: "com.microsoft" | "" | "written" | undefined;
  /** Whether the rotation's tables are inputs of the model. */
  readonly fed: boolean;
  /** Whether positions of the rotation are given. */
  readonly positioned: boolean;
  /** Batch and heads of the additive bias, each one or all; undefined without one. */
  readonly bias: readonly [all: boolean, all: boolean] | undefined;
  readonly sink: "heads" | "smooth" | undefined;
  readonly causal: boolean;
  readonly window: number | undefined;
  readonly softcap: number;
  readonly scale: number | undefined;
  /** `grown` by each call, a `buffer` of the largest length, or `none`: then there is one call. */
  readonly past: "grown" | "buffer" | "none";
}

/** Random options that ONNX Runtime's CPU provider takes. */
export function randomOptions(random: Random, half: boolean): GroupQueryOptions {
  const chance = (share: number): boolean => random() < share;
  const pick = <T>(...values: readonly T[]): T => values[integer(random, 0, values.length - 1)]!;
  const headSize = pick(16, 32);
  const rotated = chance(0.7) ? pick(16, headSize) : 0;
  const causal = !chance(0.2);
  const before = rotated > 0 && chance(0.4) ? pick("com.microsoft", "", "written") : undefined;
  const packed = chance(0.3);
  return {
    groups: pick(1, 2, 4),
    headSize,
    half,
    packed,
    biased: chance(0.4),
    multiplied: chance(0.3),
    normed: !packed && chance(0.3) ? pick("LayerNormalization", "SimplifiedLayerNormalization") : undefined,
    rotated,
    interleaved: chance(0.3),
    before,
    fed: rotated > 0 && before !== "written" && chance(0.2),
    positioned: rotated > 0 && (before !== undefined || chance(0.4)),
    bias: chance(0.3) ? [chance(0.5), chance(0.5)] : undefined,
    sink: pick(undefined, undefined, "heads", "smooth"),
    causal,
    window: causal && chance(0.3) ? integer(random, 1, 4) : undefined,
    softcap: chance(0.3) ? 0.5 : 0,
    scale: chance(0.3) ? 0.4 : undefined,
    past: pick("grown", "grown", "buffer", "none"),
  };
}

/** x → query, key, value → the operator → output projection, twice. */
export function groupQueryModel(options: GroupQueryOptions, random: Random): OnnxModel {
  const { groups, headSize: size, half, packed, biased, multiplied, rotated, before, positioned, bias, sink, past } =
    options;
  const type = half ? DataType.FLOAT16 : DataType.FLOAT;
  const widths = { q: H * size, k: groups * size, v: groups * size };
  const numbers = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5), type);
  const angles = Float32Array.from({ length: TABLE * rotated / 2 }, (_, i) => {
    const [position, pair] = [Math.floor(i / (rotated / 2)), i % (rotated / 2)];
    return position * 10 ** (-2 * pair / rotated);
  });
  const table = (name: string, of: (angle: number) => number) =>
    floatTensor(name, [TABLE, rotated / 2], angles.map(of), type);
  const extra = new GraphWriter(type);
  const rotations = new Rotations(extra, { rotated, ...(options.interleaved ? { interleaved: true } : {}) }, size);
  /** Operands whose queries and keys are rotated. */
  const turned = (given: readonly string[]): string[] => {
    const ends = [0, widths.q, widths.q + widths.k, widths.q + 2 * widths.k];
    const parts = packed
      ? [0, 1, 2].map((i) => extra.slice(given[0]!, -1, { start: ends[i]!, end: ends[i + 1]! }))
      : given;
    const all = parts.map((part, i) => i === 2 ? part : turnedHeads(part, i === 0 ? H : groups));
    return packed ? [extra.node("Concat", all, { axis: -1n })] : all;
  };
  const turnedHeads = (joined: string, heads: number): string => {
    const domain = before!;
    if (domain !== "written") {
      const operator = { domain, positions: "rows", joined: true, tables: ["cos", "sin"] } as const;
      return rotations.operated(joined, { operator, theta: 1e4, heads });
    }
    const perm = [0n, 2n, 1n, 3n];
    const apart = extra.node("Transpose", [extra.node("Reshape", [joined, extra.integers(0, 0, heads, size)])], {
      perm,
    });
    const across = extra.node("Transpose", [rotations.written(apart, { theta: 1e4 })], { perm });
    return extra.node("Reshape", [across, extra.integers(0, 0, heads * size)]);
  };
  const normedKeys = (joined: string, operator: string): string => {
    const apart = extra.node("Reshape", [joined, extra.integers(0, 0, groups, size)]);
    const shift = operator === "LayerNormalization" ? [extra.matrix(size)] : [];
    const normed = extra.node(operator, [apart, extra.matrix(size), ...shift], { axis: -1n, epsilon: 0.05 });
    return extra.node("Reshape", [normed, extra.integers(0, 0, groups * size)]);
  };
  const projections = (layer: number, x: string): { nodes: NodeProto[]; operands: string[] } => {
    const parts = packed ? { qkv: widths.q + 2 * widths.k } : widths;
    const nodes = Object.keys(parts).flatMap((part) => {
      const [product, given] = [`${part}0.${layer}`, `${part}.${layer}`];
      const multiplied = makeNode("MatMul", [x, `w.${part}.${layer}`], [biased ? product : given]);
      return biased ? [multiplied, makeNode("Add", [product, `b.${part}.${layer}`], [given])] : [multiplied];
    });
    const apart = Object.keys(parts).map((part) => `${part}.${layer}`);
    const factors = apart.map((operand, i) => makeNode("Mul", [operand, `factor.${i}`], [`${operand}.multiplied`]));
    const given = multiplied ? apart.map((name) => `${name}.multiplied`) : apart;
    const normed = options.normed === undefined ? given : given.with(1, normedKeys(given[1]!, options.normed));
    const operands = before === undefined ? normed : turned(normed);
    return { nodes: multiplied ? [...nodes, ...factors] : nodes, operands: packed ? [...operands, "", ""] : operands };
  };
  const all = Array.from({ length: LAYERS }, (_, layer) => layer);
  const attributes: Record<string, AttributeValue> = {
    num_heads: BigInt(H),
    kv_num_heads: BigInt(groups),
    do_rotary: rotated > 0 && before === undefined ? 1n : 0n,
    rotary_interleaved: options.interleaved ? 1n : 0n,
    causal: options.causal ? 1n : 0n,
    local_window_size: BigInt(options.window ?? -1),
    softcap: options.softcap,
    smooth_softmax: sink === "smooth" ? 1n : 0n,
    ...(options.scale === undefined ? {} : { scale: options.scale }),
  };
  const cache = (prefix: string, layer: number): string[] =>
    ["key", "value"].map((part) => `${prefix}.${layer}.${part}`);
  const node = all.flatMap((layer) => {
    const x = layer === 0 ? "x" : `x.${layer}`;
    const { nodes, operands } = projections(layer, x);
    const inputs = [
      ...operands,
      ...(past === "none" ? ["", ""] : cache("past_key_values", layer)),
      "seqlens",
      "total",
      ...(rotated > 0 && before === undefined ? ["cos", "sin"] : ["", ""]),
      positioned && before === undefined ? "positions" : "",
      bias === undefined ? "" : "bias",
      sink === "heads" ? `sink.${layer}` : "",
    ];
    while (inputs.at(-1) === "") inputs.pop();
    const outputs = [`context.${layer}`, ...cache("present", layer)];
    const last = layer === LAYERS - 1;
    return [
      ...nodes,
      makeNode("GroupQueryAttention", inputs, outputs, { name: outputs[0]!, domain: "com.microsoft", attributes }),
      makeNode("MatMul", [`context.${layer}`, `wo.${layer}`], [last ? "y" : `y.${layer}`]),
      ...(last ? [] : [makeNode("Add", [x, `y.${layer}`], [`x.${layer + 1}`])]),
    ];
  });
  const graph = create(GraphProtoSchema, {
    name: "group_query",
    node: [...inOrder([...node, ...extra.nodes])],
    initializer: [
      ...extra.tensors,
      ...all.flatMap((layer) => [
        ...Object.entries(packed ? { qkv: widths.q + 2 * widths.k } : widths).flatMap(([part, width]) => [
          numbers(`w.${part}.${layer}`, D, width),
          ...(biased ? [numbers(`b.${part}.${layer}`, width)] : []),
        ]),
        numbers(`wo.${layer}`, H * size, D),
        ...(sink === "heads" ? [numbers(`sink.${layer}`, H)] : []),
      ]),
      ...[0.5, 0.75, 1.5].map((factor, i) => floatTensor(`factor.${i}`, [], Float32Array.of(factor), type)),
      ...(rotated > 0 && !options.fed ? [table("cos", Math.cos), table("sin", Math.sin)] : []),
    ],
    input: [
      tensorInfo("x", type, ["batch", "sequence", D]),
      tensorInfo("seqlens", DataType.INT32, ["batch"]),
      tensorInfo("total", DataType.INT32, []),
      ...(options.fed ? ["cos", "sin"].map((name) => tensorInfo(name, type, [TABLE, rotated / 2])) : []),
      ...(positioned ? [tensorInfo("positions", DataType.INT64, ["batch", "sequence"])] : []),
      ...(bias === undefined ? [] : [
        tensorInfo("bias", type, [bias[0] ? "batch" : 1, bias[1] ? H : 1, "sequence", "total"]),
      ]),
      ...(past === "none"
        ? []
        : all.flatMap((layer) =>
          cache("past_key_values", layer).map((name) => tensorInfo(name, type, ["batch", groups, "past", size]))
        )),
    ],
    output: [
      tensorInfo("y", type, ["batch", "sequence", D]),
      ...all.flatMap((layer) =>
        cache("present", layer).map((name) => tensorInfo(name, type, ["batch", groups, "present", size]))
      ),
    ],
  });
  const opsetImport = [{ domain: "", version: before === "" ? 23n : 17n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 10n, graph, opsetImport }), path: "", folder: "" };
}
