/**
 * Models of the standard's Attention, of opset 23 and 24, with random weights and any of its options.
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

/** Hidden size, query heads, head size, layers. */
export const [D, H, SIZE, LAYERS] = [24, 4, 8, 2];

/** What an operator is asked to do. */
export interface AttentionOptions {
  readonly opset: 23 | 24;
  readonly groups: number;
  /** Whether numbers have 16 bits. */
  readonly half: boolean;
  /** Whether the softmax is asked for in 32 bits. */
  readonly precise: boolean;
  /** Queries and keys are rotated before the operator, by an operator. */
  readonly rotated: boolean;
  /** The graph repeats key and value heads before the operator, which then takes as many as queries. */
  readonly repeated: boolean;
  /** Heads stand before positions. */
  readonly headsFirst: boolean;
  /** Whether key and value have biases. */
  readonly biased: boolean;
  /** It keeps a cache, it gives one out for later calls, the graph keeps one before it, or none of it. */
  readonly keys: "cached" | "given" | "outside" | "all";
  /** Whether it is told how many keys of each row count (from opset 24 on, without a cache of its own). */
  readonly counted: boolean;
  /** Keys and values come from another stream, `e`. */
  readonly cross: boolean;
  readonly causal: boolean;
  readonly mask: "float" | "bool" | undefined;
  /** Whether each layer has a mask of its own. */
  readonly own: boolean;
  /** Sizes of the mask before tokens and keys, two at most: 1 or the scores' own. */
  readonly masked: readonly (1 | "all")[];
  readonly softcap: number;
  readonly scale: number | undefined;
  /** Which of its scores it gives out. */
  readonly gives: number | undefined;
}

/** Random options that ONNX Runtime's CPU provider takes. */
export function randomOptions(random: Random, half: boolean): AttentionOptions {
  const chance = (share: number): boolean => random() < share;
  const pick = <T>(...values: readonly T[]): T => values[integer(random, 0, values.length - 1)]!;
  const opset = pick(23, 24, 24);
  const keys = pick("cached", "cached", "given", "outside", "outside", "all");
  const headsFirst = chance(0.5);
  // Grouped heads that are joined can't become one for each query head behind a cache, or where they are rotated.
  const groups = keys === "outside" && !headsFirst ? H : pick(1, 2, 4);
  const cross = keys !== "outside" && chance(0.2);
  const repeated = chance(0.4);
  return {
    opset,
    groups,
    half,
    precise: chance(0.3),
    rotated: !cross && (headsFirst || groups === H) && chance(0.4),
    repeated,
    headsFirst,
    biased: chance(0.4),
    keys,
    counted: opset === 24 && (keys === "outside" || keys === "all") && chance(0.4),
    cross,
    causal: chance(0.5),
    mask: pick(undefined, "float", "bool"),
    own: chance(0.5),
    masked: Array.from({ length: integer(random, 0, 2) }, () => pick<1 | "all">(1, "all")),
    softcap: chance(0.4) ? 0.5 : 0,
    scale: chance(0.3) ? 0.4 : undefined,
    gives: chance(0.2) ? integer(random, 0, 3) : undefined,
  };
}

/** x → query, key, value → the operator → output projection, twice. */
export function attentionModel(options: AttentionOptions, random: Random): OnnxModel {
  const { opset, groups, repeated, headsFirst, biased, keys, counted, mask, gives } = options;
  const taken = repeated ? H : groups;
  const type = options.half ? DataType.FLOAT16 : DataType.FLOAT;
  const tensor = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5), type);
  const perm = [0n, 2n, 1n, 3n];
  const all = Array.from({ length: LAYERS }, (_, layer) => layer);
  const keeps = (prefix: string): boolean =>
    keys === "cached" || keys === "outside" || (keys === "given" && prefix === "present");
  const cached = (prefix: string, layer: number): string[] =>
    keeps(prefix) ? ["key", "value"].map((part) => `${prefix}.${layer}.${part}`) : ["", ""];
  const attributes: Record<string, AttributeValue> = {
    is_causal: options.causal ? 1n : 0n,
    softcap: options.softcap,
    ...(options.precise ? { softmax_precision: 1n } : {}),
    ...(headsFirst ? {} : { q_num_heads: BigInt(H), kv_num_heads: BigInt(taken) }),
    ...(options.scale === undefined ? {} : { scale: options.scale }),
    ...(gives === undefined ? {} : { qk_matmul_output_mode: BigInt(gives) }),
  };
  const rotation = (from: string, to: string, part: "q" | "k" | "v"): NodeProto =>
    makeNode("RotaryEmbedding", [from, "cos", "sin", "positions"], [to], {
      attributes: { num_heads: BigInt(part === "q" ? H : groups) },
    });
  const projection = (part: "q" | "k" | "v", layer: number, x: string): NodeProto[] => {
    const name = `${part}.${layer}`;
    const added = biased && part !== "q";
    const turned = options.rotated && part !== "v";
    const made = turned && !headsFirst ? `${name}.straight` : name;
    return [
      makeNode("MatMul", [options.cross && part !== "q" ? "e" : x, `w.${name}`], [added ? `${name}.product` : made]),
      ...(added ? [makeNode("Add", [`${name}.product`, `b.${name}`], [made])] : []),
      ...(turned && !headsFirst ? [rotation(made, name, part)] : []),
      ...(headsFirst
        ? [
          makeNode("Reshape", [name, part === "q" ? "split" : "split.groups"], [`${name}.split`]),
          makeNode("Transpose", [`${name}.split`], [turned ? `${name}.straight` : `${name}.first`], {
            attributes: { perm },
          }),
          ...(turned ? [rotation(`${name}.straight`, `${name}.first`, part)] : []),
        ]
        : []),
      ...(keys === "outside" && part !== "q" ? joining(part, layer) : []),
      ...(repeated && part !== "q" ? repetition(grown(part, layer)) : []),
    ];
  };
  /** Key or value with the past before it, heads first or joined again. */
  const grown = (part: "k" | "v", layer: number): string => {
    const name = headsFirst ? `${part}.${layer}.first` : `${part}.${layer}`;
    return keys === "outside" ? `${name}.grown` : name;
  };
  const joining = (part: "k" | "v", layer: number): NodeProto[] => {
    const [name, index] = [`${part}.${layer}`, part === "k" ? 0 : 1];
    const [past, present] = [cached("past_key_values", layer)[index]!, cached("present", layer)[index]!];
    const axis = { attributes: { axis: 2n } };
    if (headsFirst) {
      return [
        makeNode("Concat", [past, `${name}.first`], [present], axis),
        makeNode("Identity", [present], [grown(part, layer)]),
      ];
    }
    return [
      makeNode("Reshape", [name, "split.groups"], [`${name}.heads`]),
      makeNode("Transpose", [`${name}.heads`], [`${name}.upright`], { attributes: { perm } }),
      makeNode("Concat", [past, `${name}.upright`], [present], axis),
      makeNode("Transpose", [present], [`${name}.back`], { attributes: { perm } }),
      makeNode("Reshape", [`${name}.back`, "join.groups"], [grown(part, layer)]),
    ];
  };
  const repetition = (value: string): NodeProto[] => [
    makeNode("Reshape", [value, "apart"], [`${value}.apart`]),
    makeNode("Expand", [`${value}.apart`, "repeats"], [`${value}.repeats`]),
    makeNode("Reshape", [`${value}.repeats`, "repeated"], [`${value}.repeated`]),
  ];
  const node = all.flatMap((layer) => {
    const [x, context, last] = [layer === 0 ? "x" : `x.${layer}`, `context.${layer}`, layer === LAYERS - 1];
    const query = headsFirst ? `q.${layer}.first` : `q.${layer}`;
    const others = (["k", "v"] as const).map((part) => `${grown(part, layer)}${repeated ? ".repeated" : ""}`);
    const inside = (prefix: string): string[] => keys === "outside" ? ["", ""] : cached(prefix, layer);
    const inputs = [
      query,
      ...others,
      mask === undefined ? "" : `mask.${options.own ? layer : 0}`,
      ...inside("past_key_values"),
    ];
    if (counted) inputs.push("lengths");
    while (inputs.at(-1) === "") inputs.pop();
    const outputs = [headsFirst ? `${context}.first` : context, ...inside("present")];
    if (gives !== undefined) outputs.push(`scores.${layer}`);
    while (outputs.at(-1) === "") outputs.pop();
    return [
      ...(["q", "k", "v"] as const).flatMap((part) => projection(part, layer, x)),
      makeNode("Attention", inputs, outputs, { name: outputs[0]!, attributes }),
      ...(headsFirst
        ? [
          makeNode("Transpose", [`${context}.first`], [`${context}.positions`], { attributes: { perm } }),
          makeNode("Reshape", [`${context}.positions`, "join"], [context]),
        ]
        : []),
      makeNode("MatMul", [context, `wo.${layer}`], [last ? "y" : `y.${layer}`]),
      ...(last ? [] : [makeNode("Add", [x, `y.${layer}`], [`x.${layer + 1}`])]),
    ];
  });
  const cache = (prefix: string, positions: string) =>
    all.flatMap((layer) => cached(prefix, layer)).filter((name) => name !== "").map((name) =>
      tensorInfo(name, type, ["batch", keys === "outside" ? groups : taken, positions, SIZE])
    );
  const graph = create(GraphProtoSchema, {
    name: "attention",
    node,
    initializer: [
      ...all.flatMap((layer) => [
        tensor(`w.q.${layer}`, D, H * SIZE),
        ...["k", "v"].flatMap((part) => [
          tensor(`w.${part}.${layer}`, D, groups * SIZE),
          ...(biased ? [tensor(`b.${part}.${layer}`, groups * SIZE)] : []),
        ]),
        tensor(`wo.${layer}`, H * SIZE, D),
      ]),
      ...(options.rotated ? [angles("cos", Math.cos, type), angles("sin", Math.sin, type)] : []),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("split.groups", [0, 0, groups, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
      int64Tensor("join.groups", [0, 0, groups * SIZE]),
      int64Tensor("apart", headsFirst ? [0, groups, 1, -1, SIZE] : [0, 0, groups, 1, SIZE]),
      int64Tensor("repeats", headsFirst ? [1, 1, H / groups, 1, 1] : [1, 1, 1, H / groups, 1]),
      int64Tensor("repeated", headsFirst ? [0, H, -1, SIZE] : [0, 0, H * SIZE]),
    ],
    input: [
      tensorInfo("x", type, ["batch", "sequence", D]),
      ...(options.cross ? [tensorInfo("e", type, ["batch", "sources", D])] : []),
      ...(mask === undefined ? [] : options.own ? all : [0]).map((layer) =>
        tensorInfo(`mask.${layer}`, mask === "float" ? type : DataType.BOOL, [
          ...options.masked.map((size, i) => size === 1 ? 1 : i === options.masked.length - 1 ? H : "batch"),
          "sequence",
          "total",
        ])
      ),
      ...(options.rotated ? [tensorInfo("positions", DataType.INT64, ["batch", "sequence"])] : []),
      ...(counted ? [tensorInfo("lengths", DataType.INT64, ["batch"])] : []),
      ...cache("past_key_values", "past"),
    ],
    output: [
      tensorInfo("y", type, ["batch", "sequence", D]),
      ...cache("present", "total"),
      ...(gives === undefined
        ? []
        : all.map((layer) => tensorInfo(`scores.${layer}`, type, ["batch", H, "sequence", "total"]))),
    ],
  });
  const opsetImport = [{ domain: "", version: BigInt(opset) }];
  return { proto: create(ModelProtoSchema, { irVersion: 11n, graph, opsetImport }), path: "", folder: "" };
}

/** Cosines or sines of the angles of 16 positions. */
function angles(name: string, of: (angle: number) => number, type: number): TensorProto {
  const half = SIZE / 2;
  const data = Float32Array.from(
    { length: 16 * half },
    (_, i) => of(Math.floor(i / half) * 10 ** (-(i % half) / half)),
  );
  return floatTensor(name, [16, half], data, type);
}
