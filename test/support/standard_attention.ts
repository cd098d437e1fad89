/**
 * Models of the standard's Attention, of opset 23 and 24, with random weights and any of its options.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { integer, type Random } from "./random.ts";

/** Hidden size, query heads, head size, layers. */
export const [D, H, SIZE, LAYERS] = [24, 4, 8, 2];

/** What an operator is asked to do. */
export interface AttentionOptions {
  readonly opset: 23 | 24;
  readonly groups: number;
  /** Heads stand before positions. */
  readonly headsFirst: boolean;
  /** Whether key and value have biases. */
  readonly biased: boolean;
  /** It keeps a cache, is told how many keys of each row count (from opset 24 on), or neither. */
  readonly keys: "cached" | "counted" | "all";
  readonly causal: boolean;
  readonly mask: "float" | "bool" | undefined;
  readonly softcap: number;
  readonly scale: number | undefined;
  /** Which of its scores it gives out. */
  readonly gives: number | undefined;
}

/** Random options that ONNX Runtime's CPU provider takes. */
export function randomOptions(random: Random): AttentionOptions {
  const chance = (share: number): boolean => random() < share;
  const pick = <T>(...values: readonly T[]): T => values[integer(random, 0, values.length - 1)]!;
  const opset = pick(23, 24, 24);
  return {
    opset,
    groups: pick(1, 2, 4),
    headsFirst: chance(0.5),
    biased: chance(0.4),
    keys: opset === 23 ? pick("cached", "all") : pick("cached", "cached", "counted", "all"),
    causal: chance(0.5),
    mask: pick(undefined, "float", "bool"),
    softcap: chance(0.4) ? 0.5 : 0,
    scale: chance(0.3) ? 0.4 : undefined,
    gives: chance(0.2) ? integer(random, 0, 3) : undefined,
  };
}

/** x → query, key, value → the operator → output projection, twice. */
export function attentionModel(options: AttentionOptions, random: Random): OnnxModel {
  const { opset, groups, headsFirst, biased, keys, mask, gives } = options;
  const tensor = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5));
  const perm = [0n, 2n, 1n, 3n];
  const all = Array.from({ length: LAYERS }, (_, layer) => layer);
  const cached = (prefix: string, layer: number): string[] =>
    keys === "cached" ? ["key", "value"].map((part) => `${prefix}.${layer}.${part}`) : ["", ""];
  const attributes: Record<string, AttributeValue> = {
    is_causal: options.causal ? 1n : 0n,
    softcap: options.softcap,
    ...(headsFirst ? {} : { q_num_heads: BigInt(H), kv_num_heads: BigInt(groups) }),
    ...(options.scale === undefined ? {} : { scale: options.scale }),
    ...(gives === undefined ? {} : { qk_matmul_output_mode: BigInt(gives) }),
  };
  const projection = (part: "q" | "k" | "v", layer: number, x: string): NodeProto[] => {
    const name = `${part}.${layer}`;
    const added = biased && part !== "q";
    return [
      makeNode("MatMul", [x, `w.${name}`], [added ? `${name}.product` : name]),
      ...(added ? [makeNode("Add", [`${name}.product`, `b.${name}`], [name])] : []),
      ...(headsFirst
        ? [
          makeNode("Reshape", [name, part === "q" ? "split" : "split.groups"], [`${name}.split`]),
          makeNode("Transpose", [`${name}.split`], [`${name}.first`], { attributes: { perm } }),
        ]
        : []),
    ];
  };
  const node = all.flatMap((layer) => {
    const [x, context, last] = [layer === 0 ? "x" : `x.${layer}`, `context.${layer}`, layer === LAYERS - 1];
    const operands = ["q", "k", "v"].map((part) => `${part}.${layer}${headsFirst ? ".first" : ""}`);
    const inputs = [...operands, mask === undefined ? "" : "mask", ...cached("past_key_values", layer)];
    if (keys === "counted") inputs.push("lengths");
    while (inputs.at(-1) === "") inputs.pop();
    const outputs = [headsFirst ? `${context}.first` : context, ...cached("present", layer)];
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
      tensorInfo(name, DataType.FLOAT, ["batch", groups, positions, SIZE])
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
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("split.groups", [0, 0, groups, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
    ],
    input: [
      tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D]),
      ...(mask === undefined
        ? []
        : [tensorInfo("mask", mask === "float" ? DataType.FLOAT : DataType.BOOL, ["batch", 1, "sequence", "total"])]),
      ...(keys === "counted" ? [tensorInfo("lengths", DataType.INT64, ["batch"])] : []),
      ...cache("past_key_values", "past"),
    ],
    output: [
      tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D]),
      ...cache("present", "total"),
      ...(gives === undefined
        ? []
        : all.map((layer) => tensorInfo(`scores.${layer}`, DataType.FLOAT, ["batch", H, "sequence", "total"]))),
    ],
  });
  const opsetImport = [{ domain: "", version: BigInt(opset) }];
  return { proto: create(ModelProtoSchema, { irVersion: 11n, graph, opsetImport }), path: "", folder: "" };
}
