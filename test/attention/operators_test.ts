/**
 * Attention operators that no oracle file holds: com.microsoft.GroupQueryAttention and MultiHeadAttention with caches, and the
 * standard's Attention (opset 23), each between random projections.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention, rewriteDense, rewriteFactored, structureKey } from "../../src/attention/mod.ts";
import type { BlockForm } from "../../src/attention/types.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, intAttribute, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { randomFactors, randomForm } from "../support/random_forms.ts";
import { seeded } from "../support/random_tucker.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { testSeed } from "../support/seed.ts";

const [D, H, G, SIZE] = [24, 4, 2, 8];
const [BATCH, TOKENS] = [2, 5];

/** One block: x → query, key, value (key with a bias) → the operator → output projection. */
interface Subject {
  readonly name: string;
  readonly groups: number;
  readonly operator: (operands: readonly [string, string, string]) => NodeProto[];
  readonly inputs?: Readonly<Record<string, readonly [number, Numbers]>>;
  /** Sizes of int64 inputs of one dimension. */
  readonly lengths?: readonly number[];
  readonly headsFirst?: boolean;
  /** What keeps query and key from running reduced. */
  readonly expanded?: RegExp;
  readonly opset?: bigint;
}

function operator(
  opType: string,
  inputs: readonly string[],
  options: { outputs?: readonly string[]; domain?: string; attributes: Record<string, AttributeValue> },
): NodeProto {
  const { outputs = ["context"], ...rest } = options;
  return makeNode(opType, inputs, outputs, { name: "attention", ...rest });
}

const microsoft = { domain: "com.microsoft" };
const heads = { num_heads: BigInt(H) };
const lengths = {
  seqlens: [DataType.INT32, { shape: [BATCH], data: [TOKENS - 1, TOKENS - 1] }],
  total: [DataType.INT32, { shape: [], data: [TOKENS] }],
} as const;

const SUBJECTS: readonly Subject[] = [
  {
    name: "GroupQueryAttention",
    groups: G,
    operator: ([q, k, v]) => [
      operator("GroupQueryAttention", [q, k, v, "", "", "seqlens", "total"], {
        ...microsoft,
        outputs: ["context", "present.key", "present.value"],
        attributes: { ...heads, kv_num_heads: BigInt(G) },
      }),
    ],
    inputs: lengths,
  },
  {
    name: "MultiHeadAttention with a cache",
    groups: H,
    operator: ([q, k, v]) => [
      operator("MultiHeadAttention", [q, k, v], {
        ...microsoft,
        outputs: ["context", "present.key", "present.value"],
        attributes: { ...heads, unidirectional: 1n },
      }),
    ],
  },
  {
    name: "MultiHeadAttention whose mask only lowers scores",
    groups: H,
    operator: ([q, k, v]) => [
      operator("MultiHeadAttention", [q, k, v, "", "mask"], {
        ...microsoft,
        attributes: { ...heads, mask_filter_value: -2 },
      }),
    ],
    inputs: { mask: [DataType.INT32, { shape: [BATCH, TOKENS], data: [1, 1, 0, 1, 0, 1, 1, 1, 1, 0] }] },
  },
  {
    name: "Attention of opset 23, grouped",
    groups: G,
    operator: ([q, k, v]) => [
      operator("Attention", [q, k, v], {
        attributes: {
          q_num_heads: BigInt(H),
          kv_num_heads: BigInt(G),
          is_causal: 1n,
          scale: 0.3,
          softmax_precision: BigInt(DataType.FLOAT),
        },
      }),
    ],
  },
  {
    name: "Attention of opset 24 that counts its keys",
    groups: G,
    opset: 24n,
    operator: ([q, k, v]) => [
      operator("Attention", [q, k, v, "", "", "", "lengths"], {
        attributes: { q_num_heads: BigInt(H), kv_num_heads: BigInt(G) },
      }),
    ],
    lengths: [TOKENS - 2, TOKENS],
  },
  {
    name: "Attention of opset 23 with a soft cap, its query scaled before",
    groups: H,
    expanded: /^softcap bends the scores/,
    operator: ([q, k, v]) => [
      makeNode("Mul", [q, "quarter"], ["q.scaled"]),
      operator("Attention", ["q.scaled", k, v], {
        attributes: { q_num_heads: BigInt(H), kv_num_heads: BigInt(H), softcap: 0.05 },
      }),
    ],
  },
  {
    name: "Attention of opset 23, heads first",
    groups: H,
    headsFirst: true,
    operator: (operands) => [
      ...operands.flatMap((operand) => [
        makeNode("Reshape", [operand, "split"], [`${operand}.heads`]),
        makeNode("Transpose", [`${operand}.heads`], [`${operand}.first`], { attributes: { perm: [0n, 2n, 1n, 3n] } }),
      ]),
      operator("Attention", operands.map((operand) => `${operand}.first`), { attributes: {}, outputs: ["first"] }),
      makeNode("Transpose", ["first"], ["positions"], { attributes: { perm: [0n, 2n, 1n, 3n] } }),
      makeNode("Reshape", ["positions", "join"], ["context"]),
    ],
  },
  {
    name: "MultiHeadAttention of heads that the graph repeats",
    groups: G,
    operator: ([q, k, v]) => [
      ...[k, v].flatMap((operand) => [
        makeNode("Reshape", [operand, "apart"], [`${operand}.apart`]),
        makeNode("Expand", [`${operand}.apart`, "repeats"], [`${operand}.repeats`]),
        makeNode("Reshape", [`${operand}.repeats`, "join"], [`${operand}.repeated`]),
      ]),
      operator("MultiHeadAttention", [q, `${k}.repeated`, `${v}.repeated`], { ...microsoft, attributes: heads }),
    ],
  },
];

function modelOf({ groups, operator: make, inputs = {}, lengths, opset = 23n }: Subject): OnnxModel {
  const random = seeded(3);
  const matrix = (name: string, rows: number, columns: number) =>
    floatTensor(name, [rows, columns], Float32Array.from({ length: rows * columns }, () => random() - 0.5));
  const bias = floatTensor("bk", [groups * SIZE], Float32Array.from({ length: groups * SIZE }, () => random() - 0.5));
  const nodes = [
    makeNode("MatMul", ["x", "wq"], ["q"]),
    makeNode("MatMul", ["x", "wk"], ["k0"]),
    makeNode("Add", ["k0", "bk"], ["k"]),
    makeNode("MatMul", ["x", "wv"], ["v"]),
    ...make(["q", "k", "v"]),
    makeNode("MatMul", ["context", "wo"], ["y"]),
  ];
  const presents = nodes.flatMap(({ output }) => output).filter((name) => name.startsWith("present"));
  const graph = create(GraphProtoSchema, {
    name: "operator",
    node: nodes,
    initializer: [
      matrix("wq", D, H * SIZE),
      matrix("wk", D, groups * SIZE),
      matrix("wv", D, groups * SIZE),
      matrix("wo", H * SIZE, D),
      bias,
      floatTensor("quarter", [], Float32Array.of(0.25)),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
      int64Tensor("apart", [0, 0, G, 1, SIZE]),
      int64Tensor("repeats", [1, 1, 1, H / G, 1]),
    ],
    input: [
      tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D]),
      ...Object.entries(inputs).map(([name, [type, { shape }]]) => tensorInfo(name, type, shape)),
      ...(lengths === undefined ? [] : [tensorInfo("lengths", DataType.INT64, [lengths.length])]),
    ],
    output: [
      tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D]),
      ...presents.map((name) => tensorInfo(name, DataType.FLOAT, ["batch", groups, "total", SIZE])),
    ],
  });
  const opsetImport = [{ domain: "", version: opset }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 11n, graph, opsetImport }), path: "", folder: "" };
}

for (const subject of SUBJECTS) {
  Deno.test(`${subject.name}: found, and random forms compute what their dense weights do`, async () => {
    const model = modelOf(subject);
    const { blocks, skipped } = findAttention(model);
    assertEquals(skipped, []);
    const [block] = blocks;
    assertEquals([block!.heads, block!.keyValueHeads, block!.headSize, block!.hiddenSize], [
      H,
      subject.groups,
      SIZE,
      D,
    ]);
    assertEquals(block!.cacheNumbersPerToken, /cache|GroupQuery/.test(subject.name) ? 2 * subject.groups * SIZE : 0);
    if (subject.expanded) assertMatch(block!.queryKeyExpandedBecause!, subject.expanded);
    else assertEquals([block!.queryKeyExpandedBecause, block!.valueOutputExpandedBecause], [undefined, undefined]);
    const seed = testSeed();
    const random = seeded(seed);
    for (let trial = 0; trial < 8; trial++) {
      const forms = new Map<number, BlockForm>([[0, randomForm(block!, random, "compressed")]]);
      const { model: rewritten, slots } = rewriteFactored(model, forms, { factors: "inputs" });
      // What numbers don't show: the type in which the softmax is computed.
      const precisions = [model, rewritten].map(({ proto }) =>
        proto.graph!.node.map((node) => intAttribute(node, "softmax_precision", 0)).filter((type) => type !== 0)
      );
      assertEquals(precisions[1], precisions[0]);
      const made = randomFactors(slots, { form: forms.get(0)!, ...extractWeights(model, block!) }, random);
      await using dense = await TestSession.load(rewriteDense(model, new Map([[0, made.weights]])));
      await using session = await TestSession.load(rewritten);
      const x = Float32Array.from({ length: BATCH * TOKENS * D }, () => random() - 0.5);
      const fed = {
        x: { shape: [BATCH, TOKENS, D], data: x },
        ...Object.fromEntries(Object.entries(subject.inputs ?? {}).map(([name, [, value]]) => [name, value])),
      };
      const nested = subject.lengths === undefined ? {} : { lengths: subject.lengths };
      const expected = (await dense.run(nested, fed))["y"]!;
      const actual = (await session.run(nested, { ...fed, ...made.feeds }))["y"]!;
      const what = `seed ${seed}, trial ${trial}, ${structureKey(forms)}`;
      assertNear(actual.data, expected.data, { atol: 1e-4 * largestValue(expected.data), rtol: 0, what });
    }
  });
}
