/**
 * Models of com.microsoft.MultiHeadAttention and com.microsoft.Attention with random weights and any of their options.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto, type TensorProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { integer, type Random } from "./random.ts";

/** Hidden size, heads, head size, layers. */
export const [D, H, SIZE, LAYERS] = [24, 4, 8, 2];
/** Rows of every call. */
export const BATCH = 2;

/** What an operator is asked to do. */
export interface MultiHeadOptions {
  /** Whether it is an Attention, which projects itself and has keys and values in one tensor. */
  readonly projecting: boolean;
  /** Queries and keys are rotated before the operator, by an operator. */
  readonly rotated: boolean;
  /** Heads of keys and values that are projected; the graph repeats them before the operator where they are fewer than queries'. */
  readonly groups: number;
  /** Where biases are added, if anywhere. */
  readonly biased: "before" | "inside" | undefined;
  /** It keeps a cache, gives one out for later calls, the graph keeps one before it, or none of it. */
  readonly keys: "cached" | "given" | "outside" | "all";
  /** Layers whose keys and values come from another stream, `e`. */
  readonly cross: readonly number[];
  /** Whether each layer has a mask and a bias of its own. */
  readonly own: boolean;
  readonly causal: boolean;
  /**
   * Numbers of keys that count in each row, with or without other sums behind them or (`bounds`, of Attention) the first keys that do, or which
   * keys do: for each row of the batch, or each token.
   */
  readonly mask: "lengths" | "sums" | "bounds" | "rows" | "tokens" | undefined;
  readonly filter: number | undefined;
  /** Batch and heads of the additive bias. */
  readonly bias: readonly [1 | "all", 1 | "all"] | undefined;
  readonly scale: number | undefined;
}

/** Random options that ONNX Runtime's CPU provider takes. */
export function randomOptions(random: Random): MultiHeadOptions {
  const chance = (share: number): boolean => random() < share;
  const pick = <T>(...values: readonly T[]): T => values[integer(random, 0, values.length - 1)]!;
  const projecting = chance(0.3);
  const others = projecting ? [] : ["outside", "outside"] as const;
  const keys = pick("cached", "cached", "cached", "given", "all", ...others);
  // Grouped heads that are joined again behind a cache can't become one for each query head.
  const groups = projecting || keys === "outside" || chance(0.6) ? H : pick(1, 2);
  const one = (): 1 | "all" => pick<1 | "all">(1, "all");
  const cross = !projecting && keys !== "outside" && chance(0.3) ? pick([0, 1], [1]) : [];
  // Masks of one shape fit layers with as many keys.
  const alike = cross.length !== 1;
  return {
    projecting,
    // Joined heads that are rotated can't become one for each query head.
    rotated: !projecting && groups === H && cross.length === 0 && chance(0.4),
    groups,
    // ONNX Runtime 1.30 crashes in an Attention without. A cache of the graph's own would hold keys without the operator's.
    biased: projecting ? "inside" : pick(undefined, "before", keys === "outside" ? undefined : "inside"),
    keys,
    cross,
    own: chance(0.5),
    causal: chance(0.5),
    mask: alike ? pick(undefined, "lengths", "sums", "rows", "tokens") : undefined,
    filter: pick(undefined, -3, -3.4028234663852886e38),
    // Attention takes none with a past.
    bias: alike && !(projecting && keys === "cached") && chance(0.4) ? [one(), one()] : undefined,
    scale: chance(0.3) ? 0.4 : undefined,
  };
}

/** x → query, key, value → the operator → output projection, twice. */
export function multiHeadModel(options: MultiHeadOptions, random: Random): OnnxModel {
  const { projecting, groups, biased, keys, mask, bias, own } = options;
  const tensor = (name: string, ...shape: number[]): TensorProto =>
    floatTensor(name, shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5));
  const all = Array.from({ length: LAYERS }, (_, layer) => layer);
  const cached = (prefix: string, layer: number): string[] =>
    keys === "cached" || keys === "outside" || (keys === "given" && prefix === "present")
      ? (projecting ? ["both"] : ["key", "value"]).map((part) => `${prefix}.${layer}.${part}`)
      : projecting
      ? [""]
      : ["", ""];
  const of = (name: string, layer: number): string => `${name}.${own ? layer : 0}`;
  const attributes: Record<string, AttributeValue> = {
    num_heads: BigInt(H),
    unidirectional: options.causal ? 1n : 0n,
    ...(options.filter === undefined ? {} : { mask_filter_value: options.filter }),
    ...(options.scale === undefined ? {} : { scale: options.scale }),
  };
  const projection = (part: "q" | "k" | "v", layer: number, x: string): NodeProto[] => {
    const name = `${part}.${layer}`;
    const added = biased === "before";
    const turned = options.rotated && part !== "v";
    const made = turned ? `${name}.straight` : name;
    const heads = BigInt(part === "q" ? H : groups);
    return [
      makeNode("MatMul", [options.cross.includes(layer) && part !== "q" ? "e" : x, `w.${name}`], [
        added ? `${name}.product` : made,
      ]),
      ...(added ? [makeNode("Add", [`${name}.product`, `b.${name}`], [made])] : []),
      ...(turned
        ? [
          makeNode("RotaryEmbedding", [made, "positions", "cos", "sin"], [name], {
            domain: "com.microsoft",
            attributes: { num_heads: heads },
          }),
        ]
        : []),
      ...(keys === "outside" && part !== "q" ? joining(part, layer) : []),
      ...(part === "q" || groups === H ? [] : [
        makeNode("Reshape", [name, "apart"], [`${name}.apart`]),
        makeNode("Expand", [`${name}.apart`, "repeats"], [`${name}.repeats`]),
        makeNode("Reshape", [`${name}.repeats`, "repeated"], [`${name}.repeated`]),
      ]),
    ];
  };
  /** Key or value behind the past, with heads apart in between. */
  const joining = (part: "k" | "v", layer: number): NodeProto[] => {
    const [name, index] = [`${part}.${layer}`, part === "k" ? 0 : 1];
    const [past, present] = [cached("past_key_values", layer)[index]!, cached("present", layer)[index]!];
    const perm = [0n, 2n, 1n, 3n];
    return [
      makeNode("Reshape", [name, "split"], [`${name}.heads`]),
      makeNode("Transpose", [`${name}.heads`], [`${name}.upright`], { attributes: { perm } }),
      makeNode("Concat", [past, `${name}.upright`], [present], { attributes: { axis: 2n } }),
      makeNode("Transpose", [present], [`${name}.back`], { attributes: { perm } }),
      makeNode("Reshape", [`${name}.back`, "repeated"], [`${name}.grown`]),
    ];
  };
  const node = all.flatMap((layer) => {
    const [x, context, last] = [layer === 0 ? "x" : `x.${layer}`, `context.${layer}`, layer === LAYERS - 1];
    const suffix = keys === "outside" ? ".grown" : groups === H ? "" : ".repeated";
    const others = ["k", "v"].map((part) => `${part}.${layer}${suffix}`);
    const inside = (prefix: string): string[] => keys === "outside" ? ["", ""] : cached(prefix, layer);
    const [bias, mask] = [biased === "inside" ? `b.${layer}` : "", options.mask === undefined ? "" : of("mask", layer)];
    const added = options.bias === undefined ? "" : of("bias", layer);
    const inputs = projecting
      ? [x, `w.${layer}`, bias, mask, ...inside("past_key_values"), added]
      : [`q.${layer}`, ...others, bias, mask, added, ...inside("past_key_values")];
    while (inputs.at(-1) === "") inputs.pop();
    const outputs = [context, ...inside("present")];
    while (outputs.at(-1) === "") outputs.pop();
    return [
      ...(projecting ? [] : ["q", "k", "v"] as const).flatMap((part) => projection(part, layer, x)),
      makeNode(projecting ? "Attention" : "MultiHeadAttention", inputs, outputs, {
        name: context,
        domain: "com.microsoft",
        attributes,
      }),
      makeNode("MatMul", [context, `wo.${layer}`], [last ? "y" : `y.${layer}`]),
      ...(last ? [] : [makeNode("Add", [x, `y.${layer}`], [`x.${layer + 1}`])]),
    ];
  });
  const cache = (prefix: string, positions: string) =>
    all.flatMap((layer) => cached(prefix, layer)).filter((name) => name !== "").map((name) =>
      tensorInfo(name, DataType.FLOAT, [
        ...projecting ? [2] : [],
        BATCH,
        H,
        positions === "past" ? positions : `total${name.split(".")[1]}`,
        SIZE,
      ])
    );
  const masks = {
    lengths: [BATCH],
    sums: [3 * BATCH + 2],
    bounds: [2 * BATCH],
    rows: [BATCH, "total"],
    tokens: [BATCH, "sequence", "total"],
  };
  const sized = (size: 1 | "all", whole: number | string): number | string => size === 1 ? 1 : whole;
  const graph = create(GraphProtoSchema, {
    name: "multi_head",
    node,
    initializer: [
      ...all.flatMap((layer) => [
        ...(projecting ? [tensor(`w.${layer}`, D, 3 * H * SIZE)] : []),
        ...(projecting ? [] : [["q", H], ["k", groups], ["v", groups]] as const).flatMap(([part, heads]) => [
          tensor(`w.${part}.${layer}`, D, heads * SIZE),
          ...(biased === "before" ? [tensor(`b.${part}.${layer}`, heads * SIZE)] : []),
        ]),
        ...(biased === "inside" ? [groupedBias(`b.${layer}`, groups, random)] : []),
        tensor(`wo.${layer}`, H * SIZE, D),
      ]),
      ...(options.rotated ? [angles("cos", Math.cos), angles("sin", Math.sin)] : []),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("apart", [0, 0, groups, 1, SIZE]),
      int64Tensor("repeats", [1, 1, 1, H / groups, 1]),
      int64Tensor("repeated", [0, 0, H * SIZE]),
    ],
    input: [
      tensorInfo("x", DataType.FLOAT, [BATCH, "sequence", D]),
      ...(options.cross.length > 0 ? [tensorInfo("e", DataType.FLOAT, [BATCH, "sources", D])] : []),
      ...(options.rotated ? [tensorInfo("positions", DataType.INT64, [BATCH, "sequence"])] : []),
      ...(own ? all : [0]).flatMap((layer) => [
        ...(mask === undefined ? [] : [tensorInfo(`mask.${layer}`, DataType.INT32, masks[mask])]),
        ...(bias === undefined ? [] : [
          tensorInfo(`bias.${layer}`, DataType.FLOAT, [
            sized(bias[0], BATCH),
            sized(bias[1], H),
            "sequence",
            "total",
          ]),
        ]),
      ]),
      ...cache("past_key_values", "past"),
    ],
    output: [tensorInfo("y", DataType.FLOAT, [BATCH, "sequence", D]), ...cache("present", "total")],
  });
  const opsetImport = [{ domain: "", version: 14n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "", folder: "" };
}

/** A bias of queries, keys and values, the same for keys and values of a group. */
function groupedBias(name: string, groups: number, random: Random): TensorProto {
  const parts = [H, groups, groups].map((heads) => Float32Array.from({ length: heads * SIZE }, () => random() - 0.5));
  const data = parts.flatMap((part) =>
    Array.from({ length: H * SIZE }, (_, i) => {
      const head = Math.floor(i / SIZE / (H * SIZE / part.length));
      return part[head * SIZE + i % SIZE]!;
    })
  );
  return floatTensor(name, [3 * H * SIZE], Float32Array.from(data));
}

/** Cosines or sines of the angles of 16 positions. */
function angles(name: string, of: (angle: number) => number): TensorProto {
  const half = SIZE / 2;
  const data = Float32Array.from(
    { length: 16 * half },
    (_, i) => of(Math.floor(i / half) * 10 ** (-(i % half) / half)),
  );
  return floatTensor(name, [16, half], data);
}
