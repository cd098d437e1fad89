/**
 * Models of attention operators that keep their cache themselves, with random weights.
 *
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { seeded } from "./random_tucker.ts";
import type { Numbers, TestSession } from "./session.ts";

/** Hidden size, heads, head size. */
export const [D, H, SIZE] = [24, 4, 8];

/** x → query, key (with a bias), value → the operator with a cache → output projection, layer after layer. */
export interface FusedCache {
  readonly name: string;
  readonly groups: number;
  /** The operator projects inside, and one tensor [2, batch, heads, positions, h] holds keys and values. */
  readonly joint?: true;
  readonly headsFirst?: true;
  /** It is told how many tokens there are. */
  readonly counts?: true;
  readonly operator: (
    at: { readonly layer: number; readonly x: string; readonly operands: readonly [string, string, string] },
    cache: { readonly past: readonly string[]; readonly outputs: readonly string[] },
  ) => NodeProto;
}

function attention(
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Record<string, AttributeValue>,
): NodeProto {
  return makeNode("Attention", inputs, outputs, { name: outputs[0]!, attributes });
}

/** The operators. */
export const FUSED_CACHES: readonly FusedCache[] = [
  {
    name: "com.microsoft.Attention",
    groups: H,
    joint: true,
    operator: ({ layer, x }, { past, outputs }) =>
      makeNode("Attention", [x, `w.${layer}`, `b.${layer}`, "", ...past], outputs, {
        name: outputs[0]!,
        domain: "com.microsoft",
        attributes: { num_heads: BigInt(H), unidirectional: 1n },
      }),
  },
  {
    name: "MultiHeadAttention",
    groups: H,
    operator: ({ operands }, { past, outputs }) =>
      makeNode("MultiHeadAttention", [...operands, "", "", "", ...past], outputs, {
        name: outputs[0]!,
        domain: "com.microsoft",
        attributes: { num_heads: BigInt(H), unidirectional: 1n, scale: 0.3 },
      }),
  },
  {
    name: "Attention of opset 23, grouped",
    groups: 2,
    operator: ({ operands }, { past, outputs }) =>
      attention([...operands, "", ...past], outputs, { q_num_heads: BigInt(H), kv_num_heads: 2n, is_causal: 1n }),
  },
  {
    name: "Attention of opset 23, grouped, heads first",
    groups: 2,
    headsFirst: true,
    operator: ({ operands }, { past, outputs }) => attention([...operands, "", ...past], outputs, { is_causal: 1n }),
  },
  {
    name: "GroupQueryAttention",
    groups: 2,
    counts: true,
    operator: ({ operands }, { past, outputs }) =>
      makeNode("GroupQueryAttention", [...operands, ...past, "seqlens", "total"], outputs, {
        name: outputs[0]!,
        domain: "com.microsoft",
        attributes: { num_heads: BigInt(H), kv_num_heads: 2n },
      }),
  },
];

/** Names of the parts of a cache. */
export function partsOf({ joint }: FusedCache): readonly string[] {
  return joint ? ["both"] : ["key", "value"];
}

/** A model with that many layers. */
export function fusedCacheModel(subject: FusedCache, layers = 1): OnnxModel {
  const { groups, headsFirst, joint, operator, counts } = subject;
  const random = seeded(3);
  const numbers = (...shape: number[]): Float32Array =>
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5);
  const matrix = (name: string, ...shape: number[]) => floatTensor(name, shape, numbers(...shape));
  const perm = [0n, 2n, 1n, 3n];
  const first = (operand: string) => [
    makeNode("Reshape", [operand, operand.startsWith("q") ? "split" : "split.groups"], [`${operand}.split`]),
    makeNode("Transpose", [`${operand}.split`], [`${operand}.first`], { attributes: { perm } }),
  ];
  const cache = (positions: string) => (name: string) =>
    tensorInfo(name, DataType.FLOAT, [...joint ? [2] : [], "batch", groups, positions, SIZE]);
  const names = (prefix: string, layer: number): string[] =>
    partsOf(subject).map((part) => `${prefix}.${layer}.${part}`);
  const block = (layer: number): NodeProto[] => {
    const x = layer === 0 ? "x" : `x.${layer}`;
    const operands = ["q", "k", "v"].map((name) => `${name}.${layer}`) as [string, string, string];
    const [q, k, v] = operands;
    const context = `context.${layer}`;
    const last = layer === layers - 1;
    const made = last ? "y" : `y.${layer}`;
    const given = headsFirst ? operands.map((operand) => `${operand}.first`) as typeof operands : operands;
    const outputs = [headsFirst ? `${context}.first` : context, ...names("present", layer)];
    return [
      ...(joint ? [] : [
        makeNode("MatMul", [x, `wq.${layer}`], [q]),
        makeNode("MatMul", [x, `wk.${layer}`], [`k0.${layer}`]),
        makeNode("Add", [`k0.${layer}`, `bk.${layer}`], [k]),
        makeNode("MatMul", [x, `wv.${layer}`], [v]),
      ]),
      ...(headsFirst ? operands.flatMap(first) : []),
      operator({ layer, x, operands: given }, { past: names("past_key_values", layer), outputs }),
      ...(headsFirst
        ? [
          makeNode("Transpose", [`${context}.first`], [`${context}.positions`], { attributes: { perm } }),
          makeNode("Reshape", [`${context}.positions`, "join"], [context]),
        ]
        : []),
      makeNode("MatMul", [context, `wo.${layer}`], [made]),
      ...(last ? [] : [makeNode("Add", [x, made], [`x.${layer + 1}`])]),
    ];
  };
  const all = Array.from({ length: layers }, (_, layer) => layer);
  const graph = create(GraphProtoSchema, {
    name: "operator",
    node: all.flatMap(block),
    initializer: [
      ...all.flatMap((layer) => [
        ...(joint ? [matrix(`w.${layer}`, D, 3 * H * SIZE), matrix(`b.${layer}`, 3 * H * SIZE)] : [
          matrix(`wq.${layer}`, D, H * SIZE),
          matrix(`wk.${layer}`, D, groups * SIZE),
          matrix(`bk.${layer}`, groups * SIZE),
          matrix(`wv.${layer}`, D, groups * SIZE),
        ]),
        matrix(`wo.${layer}`, H * SIZE, D),
      ]),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("split.groups", [0, 0, groups, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
    ],
    input: [
      tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D]),
      ...(counts ? [tensorInfo("seqlens", DataType.INT32, ["batch"]), tensorInfo("total", DataType.INT32, [])] : []),
      ...all.flatMap((layer) => names("past_key_values", layer).map(cache("past"))),
    ],
    output: [
      tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D]),
      ...all.flatMap((layer) => names("present", layer).map(cache("total"))),
    ],
  });
  const opsetImport = [{ domain: "", version: 23n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 11n, graph, opsetImport }), path: "", folder: "" };
}

/** What says how many tokens there are, for a batch of one. */
export function counted({ counts }: FusedCache, tokens: number): Record<string, Numbers> {
  if (counts !== true) return {};
  return { seqlens: { shape: [1], data: [tokens - 1] }, total: { shape: [], data: [tokens] } };
}

/** A cache without tokens; dynamic head sizes are looked up by name. */
export function emptyCache(
  session: TestSession,
  size: number | Readonly<Record<string, number>>,
): Record<string, Numbers> {
  const past = Object.entries(session.inputShapes).filter(([name]) => name.startsWith("past_key_values."));
  return Object.fromEntries(past.map(([name, shape]) => {
    const last = shape.at(-1)!;
    const width = typeof last === "number" ? last : typeof size === "number" ? size : sizeOf(last, size);
    return [name, {
      shape: [...shape.length === 5 ? [Number(shape[0])] : [], 1, Number(shape.at(-3)), 0, width],
      data: [],
    }];
  }));
}

/** A size by name: a rank, or a rank with numbers beside it. */
function sizeOf(name: string, ranks: Readonly<Record<string, number>>): number {
  const [rank, more = "0"] = name.split(" + ");
  return /^\d+$/.test(rank!) ? Number(rank) : ranks[rank!]! + Number(more);
}

/** What a call gave as its cache, as the next one takes it. */
export function nextPast(outputs: Readonly<Record<string, Numbers>>): Record<string, Numbers> {
  const present = Object.entries(outputs).filter(([name]) => name.startsWith("present."));
  return Object.fromEntries(present.map(([name, numbers]) => [name.replace("present", "past_key_values"), numbers]));
}
