/** Einsum as matrix products: the same numbers as ONNX Runtime's Einsum, and no trace left where nothing is rewritten. */
import { assertEquals } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { withFields } from "../../src/onnx/codec.ts";
import { extractWeights, findAttention, rewriteDense } from "../../src/attention/mod.ts";
import { lower } from "../../src/attention/lower/lower.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { GraphProtoSchema, ModelProtoSchema } from "../../src/onnx/gen/onnx_pb.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { type GraphProto, makeNode, stringAttribute, type ValueInfoProto } from "../../src/onnx/node.ts";
import { DataType, floatTensor, sizeOf } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { assertNear } from "../support/close.ts";
import { ARCHITECTURES } from "../support/encoders.ts";
import { seededRandom } from "../support/random.ts";
import { type Numbers, TestSession } from "../support/session.ts";

const SIZES: Readonly<Record<string, number>> = {
  b: 2,
  i: 3,
  j: 5,
  n: 4,
  d: 6,
  h: 7,
  x: 2,
  y: 3,
  k: 2,
  g: 3,
  a: 2,
  m: 4,
  l: 5,
};

/** Letters whose size the graph says: heads, groups, what a head holds; and a batch and positions. */
const FIXED = "kgdaml";

/** An equation, the operand that is a constant, what it becomes (itself where it stays), and what `...` stands for. */
type Case = readonly [equation: string, constant: 0 | 1 | undefined, operators: string, leading?: string];

/** Heads of queries side by side, a head repeated for its group, and heads apart again (or probabilities side by side). */
const [QUERIES, REPEATED, APART] = [
  "Transpose Reshape",
  "Transpose Reshape Expand Reshape",
  "Shape Slice Concat Reshape",
];

const CASES: readonly Case[] = [
  ["bih,hnd->bind", 1, "Reshape MatMul Reshape"],
  ["hnd,bih->bind", 0, "Reshape MatMul Reshape"],
  ["ibh,hnd->ibnd", 1, "Reshape MatMul Reshape"],
  ["bih,hnd->bnid", 1, "Reshape MatMul Reshape Transpose"],
  ["bih,ndh->bind", 1, "Transpose Reshape MatMul Reshape"],
  ["bhi,hd->bid", 1, "Transpose MatMul"],
  ["bih,dh->bid", 1, "Transpose Reshape MatMul"],
  ["bind,ndh->bih", 1, "Reshape Reshape MatMul"],
  ["bind,hnd->bih", 1, "Reshape Transpose Reshape MatMul"],
  ["bnid,hnd->ibh", 1, "Transpose Reshape Transpose Reshape MatMul Transpose"],
  ["...h,hnd->...nd", 1, "Reshape MatMul Reshape", "bi"],
  ["bind,bjnd->bnij", undefined, "Transpose Transpose MatMul"],
  ["bjnd,bind->bnij", undefined, "Transpose Transpose MatMul"],
  ["...ind,...jnd->...nij", undefined, "Transpose Transpose MatMul", "b"],
  ["bnij,bjnd->bind", undefined, "Transpose MatMul Transpose"],
  ["ibnd,jbnd->ijbn", undefined, "Transpose Transpose MatMul Transpose"],
  ["ijbn->bnij", undefined, "Transpose"],
  ["bikgd,bjkd->bkgij", undefined, `${QUERIES} ${REPEATED} Transpose MatMul ${APART}`],
  ["bjkd,bikgd->bkgij", undefined, `${QUERIES} ${REPEATED} Transpose MatMul ${APART}`],
  ["bigkd,bjkd->bgkij", undefined, `${QUERIES} ${REPEATED} Transpose MatMul ${APART} Transpose`],
  ["bikgd,bjkd->kbgij", undefined, `${QUERIES} ${REPEATED} Transpose MatMul ${APART} Transpose`],
  ["bkgid,bkjd->bkgij", undefined, `Reshape Reshape Expand Reshape Transpose MatMul ${APART}`],
  ["bkgij,bjkd->bikgd", undefined, `${APART} ${REPEATED} MatMul Reshape Transpose`],
  ["bjkd,bkgij->bikgd", undefined, `${APART} ${REPEATED} MatMul Reshape Transpose`],
  ["bkgij,bkjd->bkgid", undefined, `${APART} Reshape Expand Reshape MatMul Reshape`],
  ["bigd,bjd->bgij", undefined, `${QUERIES} Reshape Expand Reshape Transpose MatMul ${APART}`],
  ["bgij,bjd->bigd", undefined, `${APART} Reshape Expand Reshape MatMul Reshape Transpose`],
  ["bmkgd,blkd->bkgml", undefined, `${QUERIES} ${REPEATED} MatMul Reshape`],
  ["amkgd,alkd->akgml", undefined, `${QUERIES} ${REPEATED} MatMul Reshape`],
  ["akgml,alkd->amkgd", undefined, `Reshape ${REPEATED} MatMul Reshape Transpose`],
  ["amgd,ald->agml", undefined, "Einsum"],
  ["binhd,bjnd->bnhij", undefined, "Einsum"],
  ["bind,jnd->bnij", undefined, "Einsum"],
  ["bind,jnd->bnij", 1, "Einsum"],
  ["bxyd,bjd->bxyj", undefined, "Einsum"],
  ["bin,n->bin", 1, "Einsum"],
  ["bih,hn->bi", 1, "Einsum"],
  ["bi,bj->bij", undefined, "Einsum"],
  ["bii,bij->bij", undefined, "Einsum"],
  ["bij->bi", undefined, "Einsum"],
];

/** A graph of one Einsum, its numbers, and what the equation says that it gives, summed term by term. */
function example([equation, constant, , leading = ""]: Case, random: () => number): {
  readonly graph: GraphProto;
  readonly feeds: Record<string, Numbers>;
  readonly expected: readonly number[];
} {
  const [left, result] = equation.replaceAll("...", leading).split("->") as [string, string];
  const terms = left.split(",");
  const operands = terms.map((term, i) => {
    const shape = [...term].map((letter) => SIZES[letter]!);
    return {
      name: `operand${i}`,
      term,
      shape,
      data: Float32Array.from({ length: sizeOf(shape) }, () => random() - 0.5),
    };
  });
  const inputs = operands.filter((_, i) => i !== constant);
  const info = (name: string, letters: string): ValueInfoProto =>
    tensorInfo(
      name,
      DataType.FLOAT,
      Array.from(letters, (letter, i) => FIXED.includes(letter) ? SIZES[letter]! : `${name}.${i}`),
    );
  const graph = create(GraphProtoSchema, {
    input: inputs.map(({ name, term }) => info(name, term)),
    output: [info("y", result)],
    initializer: operands.filter((_, i) => i === constant).map(({ name, shape, data }) =>
      floatTensor(name, shape, data)
    ),
    node: [makeNode("Einsum", operands.map(({ name }) => name), ["y"], { attributes: { equation } })],
  });
  const letters = [...new Set([...result, ...left.replaceAll(",", "")])];
  const sizes = letters.map((letter) => SIZES[letter]!);
  const sums = new Float64Array(sizeOf([...result].map((letter) => SIZES[letter]!)));
  const rest = sizeOf(sizes) / sums.length;
  for (let at = 0; at < sizeOf(sizes); at++) {
    const place = new Map<string, number>();
    letters.reduceRight(
      (left, letter) => (place.set(letter, left % SIZES[letter]!), Math.floor(left / SIZES[letter]!)),
      at,
    );
    sums[Math.floor(at / rest)]! += operands.reduce(
      (product, { data }, i) =>
        product * data[[...terms[i]!].reduce((index, letter) => index * SIZES[letter]! + place.get(letter)!, 0)]!,
      1,
    );
  }
  return {
    graph,
    feeds: Object.fromEntries(inputs.map(({ name, shape, data }) => [name, { shape, data }])),
    expected: [...sums],
  };
}

function modelOf(graph: GraphProto): OnnxModel {
  const opsetImport = [{ domain: "", version: 17n }];
  return { proto: create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport }), path: "einsum.onnx", folder: "." };
}

Deno.test("every Einsum gives the sums that its equation says, as the operators that it becomes", async () => {
  const random = seededRandom("einsum");
  for (const given of CASES) {
    const { graph, feeds, expected } = example(given, random);
    const lowered = lower(new Graph(graph), ".").graph.proto;
    const operators = lowered.node.map(({ opType }) => opType);
    assertEquals(operators.sort(), given[2].split(" ").sort(), given[0]);
    await using session = await TestSession.load(modelOf(lowered));
    const { y } = await session.run({}, feeds);
    assertNear(y!.data, expected, { atol: 1e-5, rtol: 0, what: given[0] });
  }
});

Deno.test("two Einsums share the rows of one matrix", () => {
  const { graph } = example(["bih,hnd->bind", 1, ""], () => 0.5);
  const [node] = graph.node;
  const output = [...graph.output, tensorInfo("z", DataType.FLOAT, ["a", "b", "c", "d"])];
  const second = withFields(node!, { name: "second", output: ["z"] });
  const lowered = lower(new Graph(withFields(graph, { node: [node!, second], output })), ".").graph.proto;
  assertEquals(lowered.node.filter(({ opType }) => opType === "MatMul").map(({ input }) => input[1]), [
    "operand1.rows7.",
    "operand1.rows7.",
  ]);
});

Deno.test("a rewrite leaves the Einsums of other layers as they are", async () => {
  const model = await loadModel(new URL("einsum/torchscript-17-eager/model.onnx", ARCHITECTURES).pathname);
  const { blocks } = findAttention(model);
  const equations = ({ proto }: OnnxModel): string[] =>
    proto.graph!.node.flatMap((node) => node.opType === "Einsum" ? stringAttribute(node, "equation")! : []);
  assertEquals(equations(model).length, 14);
  const rewritten = rewriteDense(model, new Map([[0, extractWeights(model, blocks[0]!).weights]]));
  assertEquals(equations(rewritten), [
    ...["aecd,abcd->acbe", "acbe,aecd->abcd", "abc,dc->abd", "abd,cd->abc"],
    ...["...c,cde->...de", "...c,cde->...de", "...c,cde->...de"],
    ...["...qhd,...khd->...hqk", "...hqk,...khd->...qhd", "...hd,hdc->...c"],
  ]);
  const kept = new Set(rewritten.proto.graph!.node);
  const others = model.proto.graph!.node.filter(({ name }) => !name.includes("attentions.0"));
  assertEquals(others.filter((node) => !kept.has(node)).map(({ name }) => name), []);
});
