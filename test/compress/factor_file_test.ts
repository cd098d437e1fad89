import { assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { decodeFactorFile, encodeFactorFile, writeAtomically } from "../../src/compress/factor_file.ts";
import { FactorStore } from "../../src/compress/store.ts";
import { TuckerdError } from "../../src/errors.ts";

const file = {
  metadata: { tuckerd: "{}" },
  tensors: {
    a: { shape: [2, 3], data: Float32Array.of(1, -2, 3.5, 0, 1e-30, Infinity) },
    scalarLike: { shape: [1], data: Float32Array.of(7) },
    empty: { shape: [0, 4], data: new Float32Array() },
  },
};

Deno.test("a factor file is laid out as safetensors says", () => {
  const bytes = encodeFactorFile(file);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  assertEquals(length % 8, 0);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  assertEquals(header.a, { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] });
  assertEquals(header.scalarLike.data_offsets, [24, 28]);
  assertEquals(new DataView(bytes.buffer).getFloat32(8 + length + 8, true), 3.5);
  assertEquals(bytes.length, 8 + length + 28);
});

Deno.test("a factor file comes back as it was written", () => {
  const back = decodeFactorFile(encodeFactorFile(file), "here");
  assertEquals(back, file);
});

Deno.test("a factor file that is cut short or not one is refused, naming the file", () => {
  const bytes = encodeFactorFile(file);
  for (const length of [0, 5, 8, 40, bytes.length - 1]) {
    const error = assertThrows(() => decodeFactorFile(bytes.slice(0, length), "the.file"), TuckerdError);
    assertEquals(error.kind, "bad-model");
    assertEquals(error.message.includes("the.file"), true);
  }
});

Deno.test("a file is written whole or not at all, and nothing temporary stays", async () => {
  const folder = await Deno.makeTempDir();
  await writeAtomically(`${folder}/deep/file`, Uint8Array.of(1, 2, 3));
  assertEquals(await Deno.readFile(`${folder}/deep/file`), Uint8Array.of(1, 2, 3));
  // A folder in the way refuses the rename, as a full disk refuses the write.
  await Deno.mkdir(`${folder}/taken/inside`, { recursive: true });
  const error = await assertRejects(() => writeAtomically(`${folder}/taken`, Uint8Array.of(1)), TuckerdError);
  assertEquals(error.kind, "failed");
  assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name).sort(), ["deep", "taken"]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a damaged file in the store is removed and counts as missing", async () => {
  const folder = await Deno.makeTempDir();
  await using store = await FactorStore.open(folder);
  const key = "ab".repeat(32);
  assertEquals(await store.read(key), undefined);
  await writeAtomically(store.path(key), encodeFactorFile(file));
  assertEquals(await store.read(key), file);
  await Deno.truncate(store.path(key), 60);
  assertEquals(await store.read(key), undefined);
  assertEquals(await store.has(key), false);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a store without a folder goes with its owner", async () => {
  let path: string;
  {
    await using store = await FactorStore.open(undefined);
    path = store.path("cd".repeat(32));
    await writeAtomically(path, encodeFactorFile(file));
  }
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
});

Deno.test("scratch folders of killed processes go when the next store is opened, those of others stay", async () => {
  const folder = await Deno.makeTempDir();
  const module = new URL("../../src/compress/store.ts", import.meta.url).href;
  const script = `import { FactorStore } from "${module}";
    const store = await FactorStore.open("${folder}");
    console.log(await store.scratchFolder());
    await new Promise(() => setInterval(() => {}, 1000));`;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--config", config, "--ext=ts", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(script));
  await writer.close();
  const lines: ReadableStream<string> = child.stdout.pipeThrough(new TextDecoderStream());
  const reader = lines.getReader();
  const scratch = (await reader.read()).value!.trim();
  await Deno.mkdir(`${folder}/factors/scratch/elsewhere.1.x`);
  {
    await using _store = await FactorStore.open(folder);
    assertEquals((await Deno.stat(scratch)).isDirectory, true, "removed while its process runs");
  }
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  await using _store = await FactorStore.open(folder);
  await assertRejects(() => Deno.stat(scratch), Deno.errors.NotFound);
  assertEquals((await Deno.stat(`${folder}/factors/scratch/elsewhere.1.x`)).isDirectory, true);
  await Deno.remove(folder, { recursive: true });
});
