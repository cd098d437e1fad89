/**
 * Operators that keep their cache themselves: the compressed cache holds r2 numbers per head, the full one what the model's own does, and
 * decoding token by token through either equals the dense reconstruction run at once.
 */
import { create } from "@bufbuild/protobuf";
import { assertEquals, assertThrows } from "@std/assert/mod.js";
import { chooseForm, extractWeights, findAttention, rewriteDense, rewriteFactored } from "../../src/attention/mod.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { type AttributeValue, makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { factored } from "../support/factored.ts";
import { randomBasis, seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { type Numbers, TestSession } from "../support/session.ts";
import { projectOnto, reconstruct, stackWeights, unstackWeights } from "../support/tucker_reference.ts";

const [D, H, SIZE, TOKENS] = [24, 4, 8, 5];

/** x → query, key (with a bias), value → the operator with a cache → output projection. */
interface Subject {
  readonly name: string;
  readonly groups: number;
  /** The operator projects inside, and one tensor [2, batch, heads, positions, h] holds keys and values. */
  readonly joint?: true;
  readonly headsFirst?: true;
  readonly operator: (
    operands: readonly [string, string, string],
    cache: { readonly past: readonly string[]; readonly outputs: readonly string[] },
  ) => NodeProto;
}

function attention(
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Record<string, AttributeValue>,
): NodeProto {
  return makeNode("Attention", inputs, outputs, { name: "attention", attributes });
}

const SUBJECTS: readonly Subject[] = [
  {
    name: "com.microsoft.Attention",
    groups: H,
    joint: true,
    operator: (_, { past, outputs }) =>
      makeNode("Attention", ["x", "w", "b", "", ...past], outputs, {
        name: "attention",
        domain: "com.microsoft",
        attributes: { num_heads: BigInt(H), unidirectional: 1n },
      }),
  },
  {
    name: "MultiHeadAttention",
    groups: H,
    operator: (operands, { past, outputs }) =>
      makeNode("MultiHeadAttention", [...operands, "", "", "", ...past], outputs, {
        name: "attention",
        domain: "com.microsoft",
        attributes: { num_heads: BigInt(H), unidirectional: 1n, scale: 0.3 },
      }),
  },
  {
    name: "Attention of opset 23, grouped",
    groups: 2,
    operator: (operands, { past, outputs }) =>
      attention([...operands, "", ...past], outputs, { q_num_heads: BigInt(H), kv_num_heads: 2n, is_causal: 1n }),
  },
  {
    name: "Attention of opset 23, grouped, heads first",
    groups: 2,
    headsFirst: true,
    operator: (operands, { past, outputs }) => attention([...operands, "", ...past], outputs, { is_causal: 1n }),
  },
];

/** Names of the parts of a cache. */
function partsOf({ joint }: Subject): readonly string[] {
  return joint ? ["both"] : ["key", "value"];
}

function modelOf(subject: Subject): OnnxModel {
  const { groups, headsFirst, joint, operator } = subject;
  const random = seeded(3);
  const numbers = (...shape: number[]): Float32Array =>
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5);
  const matrix = (name: string, ...shape: number[]) => floatTensor(name, shape, numbers(...shape));
  const past = partsOf(subject).map((part) => `past_key_values.0.${part}`);
  const present = partsOf(subject).map((part) => `present.0.${part}`);
  const perm = [0n, 2n, 1n, 3n];
  const first = (operand: string, i: number) => [
    makeNode("Reshape", [operand, i === 0 ? "split" : "split.groups"], [`${operand}.split`]),
    makeNode("Transpose", [`${operand}.split`], [`${operand}.first`], { attributes: { perm } }),
  ];
  const operands = ["q", "k", "v"] as const;
  const named = operands.map((operand) => headsFirst ? `${operand}.first` : operand) as [string, string, string];
  const outputs = [headsFirst ? "context.first" : "context", ...present];
  const joining = [
    makeNode("Transpose", ["context.first"], ["context.positions"], { attributes: { perm } }),
    makeNode("Reshape", ["context.positions", "join"], ["context"]),
  ];
  const cache = (positions: string) => (name: string) =>
    tensorInfo(name, DataType.FLOAT, [...joint ? [2] : [], "batch", groups, positions, SIZE]);
  const projections = [
    makeNode("MatMul", ["x", "wq"], ["q"]),
    makeNode("MatMul", ["x", "wk"], ["k0"]),
    makeNode("Add", ["k0", "bk"], ["k"]),
    makeNode("MatMul", ["x", "wv"], ["v"]),
  ];
  const graph = create(GraphProtoSchema, {
    name: "operator",
    node: [
      ...(joint ? [] : projections),
      ...(headsFirst ? operands.flatMap(first) : []),
      operator(named, { past, outputs }),
      ...(headsFirst ? joining : []),
      makeNode("MatMul", ["context", "wo"], ["y"]),
    ],
    initializer: [
      matrix("w", D, 3 * H * SIZE),
      matrix("b", 3 * H * SIZE),
      matrix("wq", D, H * SIZE),
      matrix("wk", D, groups * SIZE),
      matrix("bk", groups * SIZE),
      matrix("wv", D, groups * SIZE),
      matrix("wo", H * SIZE, D),
      int64Tensor("split", [0, 0, H, SIZE]),
      int64Tensor("split.groups", [0, 0, groups, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
    ],
    input: [tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D]), ...past.map(cache("past"))],
    output: [tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D]), ...present.map(cache("total"))],
  });
  const opsetImport = [{ domain: "", version: 23n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 11n, graph, opsetImport }), path: "", folder: "" };
}

for (const subject of SUBJECTS) {
  for (const [cache, r3] of [["compressed", 4], ["compressed", 3], ["full", 4], ["full", 3]] as const) {
    Deno.test(`${subject.name}: token by token through a ${cache} cache, stack rank ${r3}`, async () => {
      const model = modelOf(subject);
      const [block] = findAttention(model).blocks;
      assertEquals([block!.queryKeyExpandedBecause, block!.valueOutputExpandedBecause], [undefined, undefined]);
      const seed = testSeed();
      const random = seeded(seed);
      const { weights } = extractWeights(model, block!);
      const r2 = 1 + Math.floor(random() * SIZE);
      const [u1, u2, u3] = [[D, D / 2], [SIZE, r2], [4, r3]].map(([n, r]) => randomBasis(n!, r!, random)) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const tensor = { d: D, h: SIZE, heads: H, data: stackWeights(weights) };
      const tucker = projectOnto(tensor, { u1, u2, u3 });
      const { model: rewritten, feeds } = factored(model, new Map([[0, tucker]]), cache);
      const replaced = unstackWeights(reconstruct(tucker), tensor);
      const heads = r3 === 4 ? subject.groups : H;
      const size = cache === "full" ? SIZE : r2;
      await using dense = await TestSession.load(rewriteDense(model, new Map([[0, replaced]])));
      await using session = await TestSession.load(rewritten);
      const x = Float32Array.from({ length: TOKENS * D }, () => random() - 0.5);
      const expected = (await dense.run({}, { x: { shape: [1, TOKENS, D], data: x }, ...empty(dense, subject) }))["y"]!;
      let past: Record<string, Numbers> = empty(session, subject, size);
      for (let t = 0; t < TOKENS; t++) {
        const token = { shape: [1, 1, D], data: x.slice(t * D, (t + 1) * D) };
        const step = await session.run({}, { ...feeds, ...past, x: token });
        const parts = partsOf(subject);
        past = Object.fromEntries(parts.map((part) => [`past_key_values.0.${part}`, step[`present.0.${part}`]!]));
        const kept = [...subject.joint ? [2] : [], 1, heads, t + 1, size];
        assertEquals(Object.values(past).map(({ shape }) => [...shape]), parts.map(() => kept));
        const wanted = Array.from(expected.data).slice(t * D, (t + 1) * D);
        const what = `seed ${seed}, token ${t}`;
        assertNear(step["y"]!.data, wanted, { atol: 1e-4 * largestValue(expected.data), rtol: 0, what });
      }
    });
  }
}

Deno.test("MultiHeadAttention with a cache runs both pairs reduced, by one subspace, or neither", () => {
  const model = modelOf(SUBJECTS.find(({ name }) => name === "MultiHeadAttention")!);
  const [block] = findAttention(model).blocks;
  assertEquals(block!.oneHeadSize, true);
  const separate = chooseForm(block!, "tucker3", { cache: "compressed" });
  assertEquals([separate.queryKey, separate.valueOutput], ["expanded", "expanded"]);
  const form = { ...chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" }), queryKey: "expanded" as const };
  assertThrows(() => rewriteFactored(model, new Map([[0, form]]), { factors: "inputs" }), Error, "heads of one size");
});

/** A cache without tokens. */
function empty(session: TestSession, subject: Subject, size = SIZE): Record<string, Numbers> {
  return Object.fromEntries(
    partsOf(subject).map((part) => {
      const name = `past_key_values.0.${part}`;
      const heads = Number(session.inputShapes[name]!.at(-3));
      return [name, { shape: [...subject.joint ? [2] : [], 1, heads, 0, size], data: [] }];
    }),
  );
}
