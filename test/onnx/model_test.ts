import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { create, toBinary } from "@bufbuild/protobuf";
import { TuckerdError } from "../../src/errors.ts";
import { byteLength, decodeModel, encodeModelPieces, withFields } from "../../src/onnx/codec.ts";
import { GraphProtoSchema, ModelProtoSchema, TensorProto_DataLocation } from "../../src/onnx/gen/onnx_pb.ts";
import { encodeModel, loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { floatTensor, readFloats } from "../../src/onnx/tensor.ts";
import { oracleExports, oracleModels } from "../support/oracle.ts";

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

async function rejection(path: string): Promise<TuckerdError> {
  return await assertRejects(() => loadModel(path), TuckerdError);
}

/** One Identity of a big tensor, optionally in external data. */
function tinyModel(external?: string): OnnxModel {
  const values = Float32Array.from({ length: 8192 }, (_, i) => i / 7);
  const tensor = floatTensor("weight", [64, 128], values);
  if (external !== undefined) {
    tensor.rawData = new Uint8Array();
    tensor.dataLocation = TensorProto_DataLocation.EXTERNAL;
    tensor.externalData = [["location", external], ["offset", "64"], ["length", "32768"]].map(([key, value]) => ({
      $typeName: "onnx.StringStringEntryProto",
      key: key!,
      value: value!,
    }));
  }
  const graph = create(GraphProtoSchema, {
    name: "tiny",
    initializer: [tensor],
    node: [makeNode("Identity", ["weight"], ["y"])],
    output: [{ name: "y" }],
  });
  const proto = create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport: [{ version: 17n }] });
  return { proto, path: "tiny.onnx", folder: "." };
}

Deno.test("every oracle model survives decoding and encoding, byte for byte of its standard encoding", async () => {
  for (const { path } of oracleModels().flatMap(oracleExports)) {
    const bytes = await Deno.readFile(path);
    const again = encodeModel(await loadModel(path));
    // Pieces put initializers behind nodes; the standard writer puts both readings in the same order.
    assert(equalBytes(toBinary(ModelProtoSchema, decodeModel(again)), bytes), path);
  }
});

Deno.test("encoding in pieces hands large tensors over without a copy", () => {
  const model = tinyModel();
  const { rawData } = model.proto.graph!.initializer[0]!;
  const pieces = encodeModelPieces(model.proto);
  assert(pieces.includes(rawData));
  assertEquals(byteLength(pieces), encodeModel(model).length);
  const [tensor] = decodeModel(encodeModel(model)).graph!.initializer;
  assertEquals(readFloats(tensor!, "."), readFloats(model.proto.graph!.initializer[0]!, "."));
});

Deno.test("fields that the schema doesn't name survive a round trip", () => {
  const bytes = encodeModel(tinyModel());
  // Field 26 (device configurations) of the model, as a later ONNX would write it.
  const extended = Uint8Array.from([...bytes, 0xd2, 0x01, 3, 1, 2, 3]);
  const again = encodeModel({ ...tinyModel(), proto: decodeModel(extended) });
  assertEquals(again.length, extended.length);
  assert(String([...again]).includes(String([0xd2, 0x01, 3, 1, 2, 3])));
});

Deno.test("withFields shares what it doesn't change, and keeps unset fields unset", () => {
  const { proto } = tinyModel();
  const changed = withFields(proto, { producerName: "test" });
  assert(changed.graph === proto.graph);
  assertEquals(changed.producerName, "test");
  assertEquals(proto.producerName, "");
  assertEquals(
    encodeModel({ proto: withFields(changed, { producerName: undefined! }), path: "", folder: "" }),
    encodeModel({ proto, path: "", folder: "" }),
  );
});

Deno.test("files that aren't models are refused with a reason", async () => {
  const folder = await Deno.makeTempDir();
  const [whole] = oracleExports("roberta");
  const bytes = await Deno.readFile(whole!.path);
  const write = async (name: string, content: Uint8Array): Promise<string> => {
    await Deno.writeFile(`${folder}/${name}`, content);
    return `${folder}/${name}`;
  };
  for (const length of [1, 100, bytes.length >> 1, bytes.length - 1]) {
    const error = await rejection(await write("cut.onnx", bytes.subarray(0, length)));
    assertEquals(error.kind, "bad-model");
    assert(error.message.includes("cut.onnx"));
  }
  const text = new TextEncoder().encode("<!DOCTYPE html><html><body>404</body></html>");
  assertEquals((await rejection(await write("page.onnx", text))).kind, "bad-model");
  assertEquals((await rejection(await write("empty.onnx", new Uint8Array()))).kind, "bad-model");
  assertEquals((await rejection(`${folder}/missing.onnx`)).kind, "not-found");
  assertEquals((await rejection(folder)).kind, "bad-model");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("external data is checked, read by range, and copied beside a saved model", async () => {
  const folder = await Deno.makeTempDir();
  const values = new Float32Array(8192 + 16).map((_, i) => i);
  const path = `${folder}/model.onnx`;
  await Deno.writeFile(path, encodeModel(tinyModel("sub/weights.bin")));
  const missing = await rejection(path);
  assertEquals(missing.kind, "bad-model");
  assert(missing.message.includes("sub/weights.bin"));
  await Deno.mkdir(`${folder}/sub`);
  await Deno.writeFile(`${folder}/sub/weights.bin`, new Uint8Array(values.buffer, 0, 1000));
  assert((await rejection(path)).message.includes("has 1000 bytes"));
  await Deno.writeFile(`${folder}/sub/weights.bin`, new Uint8Array(values.buffer));
  const model = await loadModel(path);
  assertEquals(readFloats(model.proto.graph!.initializer[0]!, model.folder), values.subarray(16));

  await saveModel(model, `${folder}/out/model.onnx`);
  const saved = await loadModel(`${folder}/out/model.onnx`);
  assertEquals(readFloats(saved.proto.graph!.initializer[0]!, saved.folder), values.subarray(16));
  assertEquals([...Deno.readDirSync(`${folder}/out`)].map((entry) => entry.name).sort(), ["model.onnx", "sub"]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("external data outside the model's folder is refused", async () => {
  const path = await Deno.makeTempFile();
  for (const location of ["../secret", "/etc/passwd", "a/../../b"]) {
    await Deno.writeFile(path, encodeModel(tinyModel(location)));
    const error = await rejection(path);
    assertEquals(error.kind, "bad-model");
    assert(error.message.includes("inside the model's folder"));
  }
  await Deno.remove(path);
});

Deno.test("a failed save leaves no half model behind", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.mkdir(`${folder}/model.onnx`); // a folder in the way: the rename fails
  await Deno.writeTextFile(`${folder}/model.onnx/x`, "");
  const error = await assertRejects(() => saveModel(tinyModel(), `${folder}/model.onnx`), TuckerdError);
  assertEquals(error.kind, "failed");
  assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["model.onnx"]);
  await Deno.remove(folder, { recursive: true });
});
