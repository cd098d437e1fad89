/**
 * Values normed head by head without a gain (Gemma 3n): in r2 they must be what the graph itself makes of the same weights. What is a
 * norm nearly stays at full size.
 */
import { assertEquals, assertMatch } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { chooseForm, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { canBeLatent } from "../../src/attention/form.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import type { OnnxModel } from "../../src/onnx/model.ts";
import { makeNode, type NodeProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, int64Tensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear, largestValue } from "../support/close.ts";
import { integer, type Random, seededRandom } from "../support/random.ts";
import { randomForm } from "../support/random_forms.ts";
import { closedModel, withRandomFactors } from "../support/random_model.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const [D, H, G, SIZE] = [12, 4, 2, 6];
/** So large beside the mean of squares, about 0.3, that leaving it out or dividing by ρ instead of h shows. */
const EPSILON = 0.05;

/** How a graph writes x / √(mean(x²) + ε), from `v.heads` to `v.normed`. */
interface Writing {
  readonly square: "Pow" | "Mul";
  readonly root: "Pow" | "Reciprocal" | "Div by root" | "Mul by 1/root";
  readonly opset: 17 | 18;
  readonly factorFirst?: boolean;
}

function norm({ square, root, opset, factorFirst }: Writing): NodeProto[] {
  const inverse = root === "Pow" ? [makeNode("Pow", ["shifted", "minus.half"], ["factor"])] : [
    makeNode("Sqrt", ["shifted"], ["root"]),
    ...(root === "Reciprocal" ? [makeNode("Reciprocal", ["root"], ["factor"])] : []),
    ...(root === "Mul by 1/root" ? [makeNode("Div", ["one", "root"], ["factor"])] : []),
  ];
  const [axes, attributes] = opset === 18 ? [["minus.one"], {}] : [[], { axes: [-1n] }];
  return [
    square === "Pow"
      ? makeNode("Pow", ["v.heads", "two"], ["squares"])
      : makeNode("Mul", ["v.heads", "v.heads"], ["squares"]),
    makeNode("ReduceMean", ["squares", ...axes], ["mean"], { attributes }),
    makeNode("Add", factorFirst ? ["epsilon", "mean"] : ["mean", "epsilon"], ["shifted"]),
    ...inverse,
    root === "Div by root"
      ? makeNode("Div", ["v.heads", "root"], ["v.normed"])
      : makeNode("Mul", factorFirst ? ["factor", "v.heads"] : ["v.heads", "factor"], ["v.normed"]),
  ];
}

const WRITINGS: readonly Writing[] = [
  { square: "Pow", root: "Pow", opset: 17 },
  { square: "Pow", root: "Div by root", opset: 18 },
  { square: "Mul", root: "Reciprocal", opset: 17, factorFirst: true },
  { square: "Mul", root: "Mul by 1/root", opset: 18, factorFirst: true },
];

/** Grouped attention with a cache of normed values; `between` makes `v.normed` from `v.heads` [batch, positions, G, h]. */
function attention(
  between: readonly NodeProto[],
  opset: number,
  random: Random,
  more: { biased?: true; half?: true } = {},
): OnnxModel {
  const type = more.half ? DataType.FLOAT16 : DataType.FLOAT;
  const tensor = (name: string, ...shape: number[]) =>
    floatTensor(name, shape, Float32Array.from({ length: sizeOf(shape) }, () => random() - 0.5), type);
  const scalar = (name: string, value: number) => floatTensor(name, [], Float32Array.of(value), DataType.FLOAT);
  const perm = (...order: number[]) => ({ attributes: { perm: order.map(BigInt) } });
  const repeat = (name: string): NodeProto[] => [
    makeNode("Unsqueeze", [name, "axis.two"], [`${name}.one`]),
    makeNode("Expand", [`${name}.one`, "repeats"], [`${name}.repeated`]),
    makeNode("Reshape", [`${name}.repeated`, "all.heads"], [`${name}.all`]),
  ];
  const floats = more.half
    ? [makeNode("Cast", ["v.split"], ["v.heads"], { attributes: { to: BigInt(DataType.FLOAT) } })]
    : [];
  const back = more.half ? [makeNode("Cast", ["v.normed"], ["v.back"], { attributes: { to: BigInt(type) } })] : [];
  const graph = create(GraphProtoSchema, {
    name: "attention",
    node: [
      ...["q", "k", "v"].map((name) => makeNode("MatMul", ["x", `w.${name}`], [`${name}.product`])),
      makeNode("Reshape", ["q.product", "split"], ["q.split"]),
      makeNode("Transpose", ["q.split"], ["q"], perm(0, 2, 1, 3)),
      makeNode("Reshape", ["k.product", "split.groups"], ["k.split"]),
      makeNode("Transpose", ["k.split"], ["k.new"], perm(0, 2, 1, 3)),
      ...(more.biased ? [makeNode("Add", ["v.product", "b.v"], ["v.biased"])] : []),
      makeNode("Reshape", [more.biased ? "v.biased" : "v.product", "split.groups"], [
        more.half ? "v.split" : "v.heads",
      ]),
      ...floats,
      ...between,
      ...back,
      makeNode("Transpose", [more.half ? "v.back" : "v.normed"], ["v.new"], perm(0, 2, 1, 3)),
      ...["k", "v"].flatMap((name) => [
        makeNode("Concat", [`past_key_values.0.${name === "k" ? "key" : "value"}`, `${name}.new`], [
          `present.0.${name === "k" ? "key" : "value"}`,
        ], { attributes: { axis: 2n } }),
        ...repeat(`present.0.${name === "k" ? "key" : "value"}`),
      ]),
      makeNode("Transpose", ["present.0.key.all"], ["k.across"], perm(0, 1, 3, 2)),
      makeNode("MatMul", ["q", "k.across"], ["scores"]),
      makeNode("Softmax", ["scores"], ["probabilities"], { name: "softmax" }),
      makeNode("MatMul", ["probabilities", "present.0.value.all"], ["context"]),
      makeNode("Transpose", ["context"], ["context.positions"], perm(0, 2, 1, 3)),
      makeNode("Reshape", ["context.positions", "join"], ["joined"]),
      makeNode("MatMul", ["joined", "w.o"], ["y"]),
    ],
    initializer: [
      ...[
        tensor("w.q", D, H * SIZE),
        tensor("w.k", D, G * SIZE),
        tensor("w.v", D, G * SIZE),
        tensor("w.o", H * SIZE, D),
      ],
      ...[
        tensor("b.v", G * SIZE),
        floatTensor("gains", [SIZE], Float32Array.from({ length: SIZE }, (_, i) => 1 + i / 4)),
      ],
      ...[
        scalar("two", 2),
        scalar("three", 3),
        scalar("minus.half", -0.5),
        scalar("one", 1),
        scalar("epsilon", EPSILON),
      ],
      ...[int64Tensor("split", [0, 0, H, SIZE]), int64Tensor("split.groups", [0, 0, G, SIZE])],
      int64Tensor("halves", [0, 0, G, 2, SIZE / 2]),
      ...[int64Tensor("join", [0, 0, H * SIZE]), int64Tensor("minus.one", [-1]), int64Tensor("axis.two", [2])],
      ...[int64Tensor("repeats", [1, 1, H / G, 1, 1]), int64Tensor("all.heads", [0, H, -1, SIZE])],
    ],
    input: [
      tensorInfo("x", type, ["batch", "sequence", D]),
      ...["key", "value"].map((part) => tensorInfo(`past_key_values.0.${part}`, type, ["batch", G, "past", SIZE])),
    ],
    output: [
      tensorInfo("y", type, ["batch", "sequence", D]),
      ...["key", "value"].map((part) => tensorInfo(`present.0.${part}`, type, ["batch", G, "total", SIZE])),
    ],
  });
  const opsetImport = [{ domain: "", version: BigInt(opset) }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "", folder: "" };
}

/** Outputs of two calls, the second with the cache of the first. */
async function twoCalls(
  model: OnnxModel,
  x: readonly [Numbers, Numbers],
  more: Readonly<Record<string, Numbers>>,
  ranks: Readonly<Record<string, number>>,
): Promise<Numbers[]> {
  await using session = await TestSession.load(model);
  const batch = x[0].shape[0]!;
  const empty = Object.fromEntries(["key", "value"].map((part) => {
    const name = `past_key_values.0.${part}`;
    const shape = session.inputShapes[name]!.map((size, i) =>
      i === 0 ? batch : i === 2 ? 0 : typeof size === "number" ? size : ranks[size]!
    );
    return [name, { shape, data: [] }];
  }));
  const first = await session.run({}, { ...more, ...empty, x: x[0] });
  const past = Object.fromEntries(
    ["key", "value"].map((part) => [`past_key_values.0.${part}`, first[`present.0.${part}`]!]),
  );
  const second = await session.run({}, { ...more, ...past, x: x[1] });
  return [first["y"]!, second["y"]!];
}

for (const half of [undefined, true] as const) {
  for (const writing of WRITINGS) {
    const name = `${half ? "float16, " : ""}${JSON.stringify(writing)}`;
    Deno.test(`${name}: normed values in r2, through a compressed cache`, async () => {
      const random = seededRandom(name);
      const model = attention(norm(writing), writing.opset, random, half ? { half } : {});
      const [block] = findAttention(model).blocks;
      assertEquals([block!.valueOutputExpandedBecause, block!.valueNormed], [undefined, true]);
      for (let round = 0; round < 5; round++) {
        // Wholly in r2 first, with as many heads as the file or as queries, then in any form.
        const form = round < 2
          ? chooseForm(block!, "tucker4", { r3: round === 0 ? 4 : 3, cache: "compressed" })
          : randomForm(block!, random, "compressed");
        const made = withRandomFactors(model, new Map([[0, form]]), random);
        const [batch, positions] = [integer(random, 1, 3), integer(random, 1, 4)];
        const input = (count: number): Numbers => {
          const shape = [batch, count, D];
          return { shape, data: Float32Array.from({ length: sizeOf(shape) }, () => random() * 2 - 1) };
        };
        const x = [input(positions), input(1)] as const;
        const expected = await twoCalls(rewriteDense(model, made.weights), x, {}, {});
        const runs = [
          await twoCalls(made.rewritten, x, made.feeds, made.ranks),
          await twoCalls(closedModel(model, new Map([[0, form]]), made), x, {}, made.ranks),
        ];
        for (const run of runs) {
          run.forEach((actual, call) =>
            assertNear(actual.data, expected[call]!.data, {
              atol: (half ? 2e-2 : 1e-4) * largestValue(expected[call]!.data),
              rtol: 0,
              what: `${name}, call ${call}, ${JSON.stringify(form)}`,
            })
          );
        }
      }
    });
  }
}

Deno.test("a decomposition of each matrix alone keeps normed values at full size, and none is cached as z", () => {
  const [block] = findAttention(attention(norm(WRITINGS[0]!), 17, seededRandom("forms"))).blocks;
  assertEquals(chooseForm(block!, "tucker3", { cache: "compressed" }).valueOutput, "expanded");
  const form = chooseForm(block!, "tucker4", { r3: 4, cache: "compressed" });
  assertEquals([form.valueOutput, canBeLatent(block!, form, "key"), canBeLatent(block!, form, "value")], [
    "reduced",
    true,
    false,
  ]);
});

const plain = norm(WRITINGS[0]!);
const edited = (opType: string, input: readonly string[], more = {}): NodeProto[] =>
  plain.map((node) => node.opType === opType ? makeNode(opType, input, node.output, more) : node);
const ahead = (node: NodeProto): NodeProto[] => [
  node,
  ...plain.map((each) =>
    makeNode(each.opType, each.input.map((name) => name === "v.heads" ? "v.before" : name), each.output, {
      attributes: each.opType === "ReduceMean" ? { axes: [-1n] } : {},
    })
  ),
];

/** Halves of the heads change places: each head of the result holds one half of either. */
const swapped = (from: string, to: string): NodeProto[] => [
  makeNode("Reshape", [from, "halves"], [`${from}.halves`]),
  makeNode("Transpose", [`${from}.halves`], [`${from}.across`], { attributes: { perm: [0n, 1n, 3n, 2n, 4n] } }),
  makeNode("Reshape", [`${from}.across`, "split.groups"], [to]),
];

const NEARLY: Readonly<Record<string, { readonly nodes: readonly NodeProto[]; readonly biased?: true }>> = {
  "with a gain": {
    nodes: [
      ...plain.slice(0, -1),
      makeNode("Mul", ["v.heads", "factor"], ["v.unit"]),
      makeNode("Mul", ["v.unit", "gains"], ["v.normed"]),
    ],
  },
  "of values with a bias": { nodes: plain, biased: true },
  "of scaled values": { nodes: ahead(makeNode("Mul", ["v.heads", "three"], ["v.before"])) },
  "over all heads together": { nodes: edited("ReduceMean", ["squares"], { attributes: { axes: [-2n, -1n] } }) },
  "over the heads instead of a head": { nodes: edited("ReduceMean", ["squares"], { attributes: { axes: [-2n] } }) },
  "of halves of two heads": {
    nodes: [
      ...swapped("v.heads", "v.before"),
      ...ahead(makeNode("Identity", ["v.before"], ["v.kept"])).slice(1, -1),
      makeNode("Mul", ["v.before", "factor"], ["v.unit"]),
      ...swapped("v.unit", "v.normed"),
    ],
  },
  "of third powers": {
    nodes: plain.map((node) =>
      node.output[0] === "squares" ? makeNode("Pow", ["v.heads", "three"], ["squares"]) : node
    ),
  },
};

for (const [name, { nodes, biased }] of Object.entries(NEARLY)) {
  Deno.test(`a norm ${name} keeps values at full size`, () => {
    const model = attention(nodes, 17, seededRandom(name), biased ? { biased } : {});
    const [block] = findAttention(model).blocks;
    assertMatch(block!.valueOutputExpandedBecause ?? "", /^value: (Mul|Pow) .* changes it$/);
    assertEquals(block!.valueNormed, undefined);
  });
}
