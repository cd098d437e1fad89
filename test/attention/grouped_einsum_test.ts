/**
 * Attention of grouped queries written as Einsum, in the orders of letters that JAX programs and PyTorch ones have: found, computed as
 * its definition says, and in random forms what the dense weights give.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { extractWeights, findAttention, rewriteDense, structureKey } from "../../src/attention/mod.ts";
import type { AttentionWeights, BlockForm } from "../../src/attention/types.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const [D, K, G, SIZE] = [20, 2, 3, 8];
const H = K * G;
const [BATCH, TOKENS, TRIALS] = [2, 5, 8];

/** The equations, and what is done to letters before and after them. */
interface Subject {
  readonly name: string;
  readonly scores: string;
  readonly context: string;
  /** Whether heads stand before positions. */
  readonly headsFirst?: true;
  /** Queries and keys are turned by their positions, so that they run at full size. */
  readonly rotated?: true;
}

const SUBJECTS: readonly Subject[] = [
  { name: "grouped heads before positions", scores: "btkgd,bskd->bkgts", context: "bkgts,bskd->btkgd" },
  { name: "positions before grouped heads", scores: "btkgd,bskd->btkgs", context: "btkgs,bskd->btkgd" },
  { name: "keys and values first", scores: "bskd,btkgd->bkgts", context: "bskd,bkgts->btkgd" },
  { name: "heads first", scores: "bkgtd,bksd->bkgts", context: "bkgts,bksd->bkgtd", headsFirst: true },
  { name: "rotated", scores: "btkgd,bskd->bkgts", context: "bkgts,bskd->btkgd", rotated: true },
];

function modelOf({ scores, context, headsFirst, rotated }: Subject, random: () => number): OnnxModel {
  const matrix = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random() - 0.5));
  const angles = Float32Array.from({ length: TOKENS * SIZE / 2 }, (_, i) => Math.floor(i / (SIZE / 2)) * 0.3);
  const turn = (name: string, heads: number) =>
    makeNode("RotaryEmbedding", [name, "positions", "cos", "sin"], [`${name}.turned`], {
      domain: "com.microsoft",
      attributes: { num_heads: BigInt(heads), rotary_embedding_dim: BigInt(SIZE) },
    });
  const apart = (name: string, shape: string, perm: readonly bigint[]) => [
    makeNode("Reshape", [name, shape], [`${name}.split`]),
    ...(headsFirst ? [makeNode("Transpose", [`${name}.split`], [`${name}.heads`], { attributes: { perm } })] : []),
  ];
  const made = (name: string): string => headsFirst ? `${name}.heads` : `${name}.split`;
  const [q, k] = rotated ? ["q.turned", "k.turned"] as const : ["q", "k"] as const;
  const operands = (equation: string, many: string, one: string): string[] =>
    equation.startsWith("bs") ? [one, many] : [many, one];
  const graph = create(GraphProtoSchema, {
    name: "einsum",
    node: [
      makeNode("MatMul", ["x", "wq"], ["q"]),
      makeNode("MatMul", ["x", "wk"], ["k0"]),
      makeNode("Add", ["k0", "bk"], ["k"]),
      makeNode("MatMul", ["x", "wv"], ["v"]),
      ...(rotated ? [turn("q", H), turn("k", K)] : []),
      ...apart(q, "split.queries", [0n, 2n, 3n, 1n, 4n]),
      ...apart(k, "split", [0n, 2n, 1n, 3n]),
      ...apart("v", "split", [0n, 2n, 1n, 3n]),
      makeNode("Einsum", operands(scores, made(q), made(k)), ["scores"], { attributes: { equation: scores } }),
      makeNode("Mul", ["scores", "scale"], ["scaled"]),
      makeNode("Add", ["scaled", "mask"], ["masked"]),
      makeNode("Softmax", ["masked"], ["p"], { name: "softmax", attributes: { axis: -1n } }),
      makeNode("Einsum", operands(context, "p", made("v")), ["c"], { attributes: { equation: context } }),
      ...(headsFirst ? [makeNode("Transpose", ["c"], ["c.t"], { attributes: { perm: [0n, 3n, 1n, 2n, 4n] } })] : []),
      makeNode("Reshape", [headsFirst ? "c.t" : "c", "join"], ["context"]),
      makeNode("MatMul", ["context", "wo"], ["y"]),
    ],
    initializer: [
      matrix("wq", D, H * SIZE),
      matrix("wk", D, K * SIZE),
      matrix("bk", K * SIZE),
      matrix("wv", D, K * SIZE),
      matrix("wo", H * SIZE, D),
      floatTensor("scale", [], Float32Array.of(0.5)),
      floatTensor("cos", [TOKENS, SIZE / 2], angles.map(Math.cos)),
      floatTensor("sin", [TOKENS, SIZE / 2], angles.map(Math.sin)),
      int64Tensor("split.queries", [0, 0, K, G, SIZE]),
      int64Tensor("split", [0, 0, K, SIZE]),
      int64Tensor("join", [0, 0, H * SIZE]),
    ],
    input: [
      tensorInfo("x", DataType.FLOAT, ["batch", "sequence", D]),
      ...(rotated ? [tensorInfo("positions", DataType.INT64, ["batch", "sequence"])] : []),
      tensorInfo("mask", DataType.FLOAT, maskShape(scores, "sequence")),
    ],
    output: [tensorInfo("y", DataType.FLOAT, ["batch", "sequence", D])],
  });
  const opsetImport = [{ domain: "", version: 17n }, { domain: "com.microsoft", version: 1n }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "", folder: "." };
}

function maskShape<T>(scores: string, tokens: T): (T | number)[] {
  return scores.endsWith("btkgs") ? [1, tokens, 1, 1, tokens] : [1, 1, 1, tokens, tokens];
}

function feedsOf({ scores, rotated }: Subject, random: () => number): Record<string, Numbers> {
  const mask = Array.from({ length: TOKENS ** 2 }, (_, i) => i % TOKENS > Math.floor(i / TOKENS) ? -1e9 : random());
  const positions = Array.from({ length: BATCH * TOKENS }, (_, i) => i % TOKENS);
  return {
    x: { shape: [BATCH, TOKENS, D], data: Float32Array.from({ length: BATCH * TOKENS * D }, () => random() - 0.5) },
    mask: { shape: maskShape(scores, TOKENS), data: mask },
    ...(rotated ? { positions: { shape: [BATCH, TOKENS], data: positions } } : {}),
  };
}

/** y of unrotated attention, term by term: all heads have their own columns, the key bias is that of their group. */
function attention(
  { query, key, value, output }: AttentionWeights,
  keyBias: ArrayLike<number>,
  { x, mask }: { readonly x: ArrayLike<number>; readonly mask: ArrayLike<number> },
): Float64Array {
  const y = new Float64Array(BATCH * TOKENS * D);
  const projected = (matrix: Float32Array, row: number, column: number): number => {
    let sum = 0;
    for (let i = 0; i < D; i++) sum += x[row * D + i]! * matrix[i * H * SIZE + column]!;
    return sum;
  };
  const sizes = Array.from({ length: SIZE }, (_, j) => j);
  for (let row = 0; row < BATCH * TOKENS; row++) {
    const t = row % TOKENS;
    for (let head = 0; head < H; head++) {
      const weights = Array.from({ length: TOKENS }, (_, s) => {
        const other = row - t + s;
        const score = sizes.reduce((sum, j) => {
          const column = head * SIZE + j;
          return sum + projected(query, row, column) * (projected(key, other, column) + keyBias[column]!);
        }, 0);
        return Math.exp(0.5 * score + mask[t * TOKENS + s]!);
      });
      const total = weights.reduce((a, b) => a + b);
      for (const j of sizes) {
        const column = head * SIZE + j;
        const mean = weights.reduce((sum, w, s) => sum + w / total * projected(value, row - t + s, column), 0);
        for (let i = 0; i < D; i++) y[row * D + i]! += mean * output[column * D + i]!;
      }
    }
  }
  return y;
}

for (const subject of SUBJECTS) {
  Deno.test(`grouped queries as Einsum, ${subject.name}: found, exact, and factored as the dense weights are`, async () => {
    const random = seededRandom(`grouped einsum, ${subject.name}`);
    const model = modelOf(subject, random);
    const { blocks: [block], skipped } = findAttention(model);
    assertEquals(skipped, []);
    assertEquals([block!.heads, block!.keyValueHeads, block!.headSize, block!.hiddenSize], [H, K, SIZE, D]);
    assertEquals(block!.valueOutputExpandedBecause, undefined);
    if (subject.rotated) assertMatch(block!.queryKeyExpandedBecause!, /^query: com.microsoft.RotaryEmbedding/);
    else assertEquals(block!.queryKeyExpandedBecause, undefined);
    const { weights, biases } = extractWeights(model, block!);
    await using original = await TestSession.load(model);
    const fed = feedsOf(subject, random);
    const given = (await original.run({}, fed))["y"]!;
    if (!subject.rotated) {
      const expected = attention(weights, biases.key!, { x: fed["x"]!.data, mask: fed["mask"]!.data });
      assertNear(given.data, expected, { atol: 1e-5 * largestValue(expected), rtol: 0, what: subject.name });
    }
    for (let trial = 0; trial < TRIALS; trial++) {
      const forms = new Map<number, BlockForm>([[0, randomForm(block!, random)]]);
      const { rewritten, feeds, weights: replaced } = withRandomFactors(model, forms, random);
      await using dense = await TestSession.load(rewriteDense(model, replaced));
      await using session = await TestSession.load(rewritten);
      const wanted = (await dense.run({}, fed))["y"]!;
      const actual = (await session.run({}, { ...feeds, ...fed }))["y"]!;
      const what = `trial ${trial}, ${structureKey(forms)}`;
      assertNear(actual.data, wanted.data, { atol: 1e-4 * largestValue(wanted.data), rtol: 0, what });
      if (subject.rotated) continue;
      const expected = attention(replaced.get(0)!, biases.key!, { x: fed["x"]!.data, mask: fed["mask"]!.data });
      assertNear(actual.data, expected, { atol: 1e-4 * largestValue(expected), rtol: 0, what });
    }
  });
}
