/** Models on their way to another folder: external data of any size goes along as far as it is used, and nothing else. */
import { assert, assertEquals, assertRejects } from "@std/assert/mod.js";
import { create } from "@bufbuild/protobuf";
import { TuckerdError } from "../../src/errors.ts";
import { withFields } from "../../src/onnx/codec.ts";
import { externalTensor } from "../../src/onnx/data_files.ts";
import { externalLocation } from "../../src/onnx/external.ts";
import { GraphProtoSchema, ModelProtoSchema, type TensorProto } from "../../src/onnx/gen/onnx_pb.ts";
import { encodeModel, externalTensors, loadModel, type OnnxModel } from "../../src/onnx/model.ts";
import { makeNode } from "../../src/onnx/node.ts";
import { saveModel } from "../../src/onnx/save.ts";
import { DataType, floatTensor, readFloats } from "../../src/onnx/tensor.ts";
import { tensorInfo } from "../../src/onnx/value_info.ts";
import { TestSession } from "../support/session.ts";

/** Numbers that no other tensor has. */
function numbers(count: number, seed: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => seed + i / 1024);
}

interface Placed {
  readonly values: Float32Array<ArrayBuffer>;
  readonly location: string;
  readonly offset: number;
}

/** Writes a model whose tensors lie where they are placed, in sparse files; its output `y0` is the first tensor, and so on. */
async function writeModel(folder: string, tensors: readonly Placed[], size?: number): Promise<OnnxModel> {
  for (const { values, location, offset } of tensors) {
    await Deno.mkdir(`${folder}/${location}`.replace(/\/[^/]*$/, ""), { recursive: true });
    using file = await Deno.open(`${folder}/${location}`, { write: true, create: true });
    await file.seek(offset, Deno.SeekMode.Start);
    await file.write(new Uint8Array(values.buffer));
    const end = (await file.stat()).size;
    if (size !== undefined && size > end) await file.truncate(size);
  }
  const initializer = tensors.map(({ values, location, offset }, i) =>
    externalTensor(floatTensor(`t${i}`, [values.length], values), { location, offset })
  );
  await Deno.writeFile(`${folder}/model.onnx`, encodeModel(modelOf(initializer)));
  return await loadModel(`${folder}/model.onnx`);
}

function modelOf(initializer: TensorProto[]): OnnxModel {
  const graph = create(GraphProtoSchema, {
    name: "tiny",
    initializer,
    node: initializer.map(({ name }, i) => makeNode("Identity", [name], [`y${i}`])),
    output: initializer.map(({ dims }, i) => tensorInfo(`y${i}`, DataType.FLOAT, dims.map(Number))),
  });
  const proto = create(ModelProtoSchema, { irVersion: 8n, graph, opsetImport: [{ version: 17n }] });
  return { proto, path: "tiny.onnx", folder: "." };
}

/** The model without some of its tensors. */
function without(model: OnnxModel, ...dropped: readonly number[]): OnnxModel {
  const kept = model.proto.graph!.initializer.filter((_, i) => !dropped.includes(i));
  return { ...model, proto: modelOf(kept).proto };
}

async function contents(path: string): Promise<Record<string, number[]>> {
  const { proto, folder } = await loadModel(path);
  return Object.fromEntries(
    proto.graph!.initializer.map((tensor) => [tensor.name, Array.from(readFloats(tensor, folder))]),
  );
}

function sizes(folder: string): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (!isDirectory) found[name] = Deno.statSync(`${folder}/${name}`).size;
    else for (const [file, size] of Object.entries(sizes(`${folder}/${name}`))) found[`${name}/${file}`] = size;
  }
  delete found["model.onnx"];
  return found;
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  await work(folder).finally(() => Deno.remove(folder, { recursive: true }));
}

Deno.test("of a data file goes along what is used, at offsets of the same alignment, and ONNX Runtime reads it", async () => {
  await inFolder(async (folder) => {
    const placed = [0, 8192, 40960, 41024, 65536 + 16].map((offset, i) => ({
      values: numbers(i === 2 ? 16 : 300, 10 * i),
      location: "weights.bin",
      offset,
    }));
    const model = await writeModel(folder, placed);
    await saveModel(without(model, 1), `${folder}/out/model.onnx`);
    const found = await contents(`${folder}/out/model.onnx`);
    for (const i of [0, 2, 3, 4]) assertEquals(found[`t${i}`], Array.from(placed[i]!.values), `t${i}`);
    const saved = await loadModel(`${folder}/out/model.onnx`);
    const offsets = [...externalTensors(saved)].map((tensor) => externalLocation(tensor, "").offset);
    assertEquals(offsets.map((offset) => offset % 4096), [0, 0, 64, 16]);
    assertEquals(offsets, [0, 4096, 4160, 8208]); // the second and third touch: they stay together
    assertEquals(sizes(`${folder}/out`), { "weights.bin": 8208 + 1200 });
    await using session = await TestSession.load({ path: `${folder}/out/model.onnx` });
    assertEquals(Array.from((await session.run({}))["y3"]!.data), Array.from(placed[4]!.values));
  });
});

Deno.test("ranges that tensors share are written once, and stay shared", async () => {
  await inFolder(async (folder) => {
    const whole = numbers(1024, 0);
    const model = await writeModel(folder, [
      { values: numbers(64, 9), location: "w", offset: 0 },
      { values: whole, location: "w", offset: 8192 },
      { values: whole.slice(), location: "w", offset: 8192 },
      { values: whole.slice(256, 512), location: "w", offset: 8192 + 1024 },
    ]);
    await saveModel(without(model, 0), `${folder}/out/model.onnx`);
    const found = await contents(`${folder}/out/model.onnx`);
    assertEquals(found, {
      t1: Array.from(whole),
      t2: Array.from(whole),
      t3: Array.from(whole.subarray(256, 512)),
    });
    assertEquals(sizes(`${folder}/out`), { w: 4096 });
  });
});

Deno.test("files keep their names, however odd; one that nothing uses any more isn't there", async () => {
  await inFolder(async (folder) => {
    const names = ["onnx::MatMul_123", "sub dir/layer.0 (ü)%20#1", "dead", "./deeper//x"];
    const model = await writeModel(
      folder,
      names.map((location, i) => ({ values: numbers(256, i), location, offset: 0 })),
    );
    await saveModel(without(model, 2), `${folder}/out/model.onnx`);
    assertEquals(sizes(`${folder}/out`), {
      "onnx::MatMul_123": 1024,
      "sub dir/layer.0 (ü)%20#1": 1024,
      "deeper/x": 1024,
    });
    const found = await contents(`${folder}/out/model.onnx`);
    assertEquals(Object.keys(found), ["t0", "t1", "t3"]);
    assertEquals(found["t1"], Array.from(numbers(256, 1)));
  });
});

Deno.test("beyond 2 and 4 GiB: only the ranges in use are read and written", async () => {
  await inFolder(async (folder) => {
    const placed = [0, 2 ** 31 + 4096, 5 * 2 ** 30].map((offset, i) => ({
      values: numbers(512, i),
      location: "model.onnx_data",
      offset,
    }));
    const model = await writeModel(folder, placed, 6 * 2 ** 30);
    await saveModel(model, `${folder}/out/model.onnx`);
    const found = await contents(`${folder}/out/model.onnx`);
    assertEquals(found, Object.fromEntries(placed.map(({ values }, i) => [`t${i}`, Array.from(values)])));
    assertEquals(sizes(`${folder}/out`), { "model.onnx_data": 8192 + 2048 });
  });
});

Deno.test("in its own folder a model refers to the data that is there, new weights lie in a file of their own", async () => {
  await inFolder(async (folder) => {
    const model = await writeModel(folder, [{ values: numbers(512, 0), location: "model.onnx_data", offset: 2 ** 31 }]);
    const before = await Deno.stat(`${folder}/model.onnx_data`);
    const added = [floatTensor("factor", [512], numbers(512, 7)), floatTensor("small", [8], numbers(8, 3))];
    const grown = { ...model, proto: modelOf([...model.proto.graph!.initializer, ...added]).proto };
    await saveModel(grown, `${folder}/small.onnx`);
    assertEquals(sizes(folder), {
      "model.onnx_data": before.size,
      "small.onnx": Deno.statSync(`${folder}/small.onnx`).size,
      "small.onnx_data": 2048,
    });
    assertEquals(await contents(`${folder}/small.onnx`), {
      t0: Array.from(numbers(512, 0)),
      factor: Array.from(numbers(512, 7)),
      small: Array.from(numbers(8, 3)),
    });
    assertEquals((await Deno.stat(`${folder}/model.onnx_data`)).mtime, before.mtime);
    const again = await assertRejects(() => saveModel(grown, `${folder}/small.onnx`), TuckerdError, "there already");
    assertEquals(again.kind, "failed");
    assertEquals(Deno.statSync(`${folder}/small.onnx_data`).size, 2048);
  });
});

Deno.test("data behind a link is copied to another folder, and not referred to from its own", async () => {
  await inFolder(async (folder) => {
    const model = await writeModel(folder, [{ values: numbers(512, 0), location: "model.onnx_data", offset: 0 }]);
    await Deno.mkdir(`${folder}/blobs`);
    await Deno.rename(`${folder}/model.onnx_data`, `${folder}/blobs/0123`);
    await Deno.symlink("blobs/0123", `${folder}/model.onnx_data`);
    await saveModel(model, `${folder}/out/model.onnx`);
    assert(!(await Deno.lstat(`${folder}/out/model.onnx_data`)).isSymlink);
    assertEquals(await contents(`${folder}/out/model.onnx`), { t0: Array.from(numbers(512, 0)) });
    const error = await assertRejects(() => saveModel(model, `${folder}/small.onnx`), TuckerdError, "is a link");
    assertEquals(error.kind, "failed");
  });
});

Deno.test("in another folder new weights follow those of the data file of that name", async () => {
  await inFolder(async (folder) => {
    const model = await writeModel(folder, [{ values: numbers(300, 0), location: "model.onnx_data", offset: 8192 }]);
    const grown = [...model.proto.graph!.initializer, floatTensor("factor", [512], numbers(512, 7))];
    await saveModel({ ...model, proto: modelOf(grown).proto }, `${folder}/out/model.onnx`);
    assertEquals(sizes(`${folder}/out`), { "model.onnx_data": 4096 + 2048 });
    assertEquals(await contents(`${folder}/out/model.onnx`), {
      t0: Array.from(numbers(300, 0)),
      factor: Array.from(numbers(512, 7)),
    });
    await using session = await TestSession.load({ path: `${folder}/out/model.onnx` });
    assertEquals(Array.from((await session.run({}))["y1"]!.data), Array.from(numbers(512, 7)));
  });
});

Deno.test("data that can't be there is refused with its place: too short, another length, no number", async () => {
  await inFolder(async (folder) => {
    const values = numbers(512, 0);
    const model = await writeModel(folder, [{ values, location: "w", offset: 4096 }]);
    const refused = async (entries: Readonly<Record<string, string>>, text: string): Promise<void> => {
      const tensor = model.proto.graph!.initializer[0]!;
      const externalData = tensor.externalData.map((entry) =>
        withFields(entry, { value: entries[entry.key] ?? entry.value })
      );
      await Deno.writeFile(`${folder}/bad.onnx`, encodeModel(modelOf([withFields(tensor, { externalData })])));
      const error = await assertRejects(() => loadModel(`${folder}/bad.onnx`), TuckerdError, text);
      assertEquals(error.kind, "bad-model");
    };
    await refused({ offset: "8192" }, "has 6144 bytes");
    await refused({ length: "2044" }, "takes 2048 bytes");
    await refused({ offset: "-4096" }, 'got "-4096"');
    await refused({ offset: "four" }, 'got "four"');
    await refused({ location: "" }, "inside the model's folder");
    await Deno.truncate(`${folder}/w`, 4096 + 100);
    const error = await assertRejects(() => saveModel(model, `${folder}/out/model.onnx`), TuckerdError, "ended while");
    assertEquals(error.kind, "failed");
    assert(![...Deno.readDirSync(`${folder}/out`)].some(({ isFile }) => isFile), "half a model was left behind");
  });
});
