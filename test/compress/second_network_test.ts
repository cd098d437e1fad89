/** Two feed-forward networks behind one attention: both are truncated, told apart in the report, and run as they should. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { resolveOptions } from "../../src/compress/options.ts";
import { writeModelFolder } from "../../src/compress/write_folder.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { floatTensor, tensorShape } from "../../src/onnx/tensor.ts";
import { assertNear, largestDifference, largestValue } from "../support/close.ts";
import { openTestCompressor } from "../support/compressors.ts";
import { oracleExports, oracleReference } from "../support/oracle.ts";
import { seeded } from "../support/random_tucker.ts";
import { testSeed } from "../support/seed.ts";
import { TestSession } from "../support/session.ts";

/** BERT whose first layer has a second network behind its first one, of matrices of its own: s + f₂(s) with s = x + f₁(x). */
async function withSecondNetwork(random: () => number): Promise<OnnxModel> {
  const original = await loadModel(oracleExports("bert").find(({ file }) => file === "onnx/model.onnx")!.path);
  const graph = original.proto.graph!;
  const layer = "/bert/encoder/layer.0/";
  const sum = `${layer}output/Add_output_0`;
  const network = graph.node.filter(({ name }) =>
    name.startsWith(`${layer}intermediate/`) || name.startsWith(`${layer}output/dense/`)
  );
  const made = new Set(network.flatMap(({ output }) => output));
  const input = network[0]!.input[0]!;
  const matrices = network.filter(({ opType }) => opType === "MatMul").map((node) => node.input[1]!);
  const name = (value: string): string =>
    value === input ? sum : made.has(value) || matrices.includes(value) ? `${value}.second` : value;
  const copies = network.map((node) =>
    withFields(node, { name: `${node.name}.second`, input: node.input.map(name), output: node.output.map(name) })
  );
  const result = copies.at(-1)!.output[0]!;
  const behind = (value: string): string => value === sum ? `${sum}.second` : value;
  const node = graph.node.flatMap((each) => {
    if (each.output[0] === sum) return [each, ...copies, makeNode("Add", [result, sum], [behind(sum)])];
    return withFields(each, { input: each.input.map(behind) });
  });
  const initializer = [
    ...graph.initializer,
    ...matrices.map((matrix) => {
      const shape = tensorShape(graph.initializer.find((tensor) => tensor.name === matrix)!);
      const numbers = Float32Array.from({ length: shape[0]! * shape[1]! }, () => (random() - 0.5) / 4);
      return floatTensor(name(matrix), shape, numbers);
    }),
  ];
  return { ...original, proto: withFields(original.proto, { graph: withFields(graph, { node, initializer }) }) };
}

Deno.test("a second network of a layer is truncated like the first, under a name of its own", async () => {
  const seed = testSeed();
  const folder = await Deno.makeTempDir();
  const model = await withSecondNetwork(seeded(seed));
  await saveModel(model, `${folder}/model.onnx`);
  await using opened = await openTestCompressor(`${folder}/model.onnx`);
  const { inputs } = oracleReference("bert").cases[0]!;
  const run = async (path: string): Promise<readonly number[]> => {
    await using session = await TestSession.load({ path });
    return Array.from(Object.values(await session.run(inputs))[0]!.data);
  };
  const options = resolveOptions({ mode: "laser", layers: "0", laser: { matrices: ["ffn"], rate: 7 } });
  const outputs: (readonly number[])[] = [];
  for (const execution of ["factored", "dense"] as const) {
    const report = await writeModelFolder(opened.compressor, options, { out: `${folder}/${execution}`, execution });
    // int(48 · 3/10) of 48×96 matrices; two of rank 14 hold 14 · 144 numbers.
    assertEquals(
      report.layers[0]!.feedForward!.map(({ relativeError: _, ...told }) => told),
      ["fc_in", "fc_out", "1.fc_in", "1.fc_out"].map((name) => (
        { name, rank: 14, parameters: 48 * 96, compressedParameters: 14 * 144, execution }
      )),
    );
    const errors = report.layers[0]!.feedForward!.map(({ relativeError }) => relativeError);
    assert(errors.every((error) => error > 0.1 && error < 1) && new Set(errors).size === 4, `seed ${seed}: ${errors}`);
    outputs.push(await run(`${folder}/${execution}/onnx/model.onnx`));
  }
  // Rank int(48 · 9/10): two of rank 43 would hold more numbers than the matrix, which stays one.
  const high = resolveOptions({ mode: "laser", layers: "0", laser: { matrices: ["ffn"], rate: 1 } });
  const { report } = await opened.compressor.compress(high);
  assertEquals(
    report.layers[0]!.feedForward!.map(({ rank, compressedParameters, execution }) => [
      rank,
      compressedParameters,
      execution,
    ]),
    Array(4).fill([43, 48 * 96, "dense"]),
  );
  const [factored, dense] = outputs as [readonly number[], readonly number[]];
  assertNear(factored, dense, { atol: 1e-5 * largestValue(dense), rtol: 0, what: `seed ${seed}` });
  // Neither network is what it was.
  const before = await run(`${folder}/model.onnx`);
  assert(largestDifference(dense, before) > 1e-3 * largestValue(before), `seed ${seed}`);
  await Deno.remove(folder, { recursive: true });
});
