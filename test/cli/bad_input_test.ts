/** What the command line says of bad input: one line on stderr, exit 1 for a failure, 2 for wrong usage. */
import { assert, assertEquals } from "@std/assert/mod.js";
import { runProgram, ServerProcess } from "../support/program.ts";

const bert = new URL("../testdata/oracle/bert/onnx-opset17/model.onnx", import.meta.url).pathname;
const serving = new URL("../testdata/serving/bert-qa/", import.meta.url).pathname;

/** Runs a task that must fail, and gives its one line. */
async function failing(args: readonly string[], code: number, env: Record<string, string> = {}): Promise<string> {
  const finished = await runProgram(args, env);
  assertEquals(finished.code, code, finished.stderr);
  assertEquals(finished.stdout, "");
  const lines = finished.stderr.trim().split("\n");
  const last = lines.at(-1)!;
  assert(last.startsWith("tuckerd: "), finished.stderr);
  assertEquals(lines.filter((line) => line.startsWith("tuckerd: ")).length, 1, finished.stderr);
  return last;
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function assertSays(line: string, ...parts: readonly string[]): void {
  for (const part of parts) assert(line.includes(part), `"${line}" doesn't say "${part}"`);
}

Deno.test("a missing model folder, and a folder without a graph", async () => {
  await inFolder(async (folder) => {
    const out = ["--out", `${folder}/out`, "--cache-dir", "off"];
    assertSays(await failing(["compress", "--model", `${folder}/none`, ...out], 1), `${folder}/none`, "doesn't exist");
    await Deno.mkdir(`${folder}/empty`);
    assertSays(await failing(["compress", "--model", `${folder}/empty`, ...out], 1), "onnx/model.onnx");
    await failing(["start", "--port", "0", "--model", `${folder}/none`], 1).catch(() => {});
  });
});

Deno.test("a truncated graph is refused by compress and by start", async () => {
  await inFolder(async (folder) => {
    const bytes = await Deno.readFile(bert);
    await Deno.writeFile(`${folder}/model.onnx`, bytes.subarray(0, Math.floor(bytes.length * 0.6)));
    const companions = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    for (const name of companions) await Deno.copyFile(serving + name, `${folder}/${name}`);
    const args = ["--model", folder, "--cache-dir", "off"];
    const line = await failing(["compress", ...args, "--out", `${folder}/out`], 1);
    assertSays(line, "model.onnx", "isn't a whole ONNX model");
    const finished = await runProgram(["start", "--port", "0", ...args]);
    assertEquals(finished.code, 1);
    assertSays(finished.stderr, "isn't a whole ONNX model");
    const left = [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
    assertEquals(left, [...companions, "model.onnx"].sort());
  });
});

Deno.test("a graph without attention is refused, saying what was found", async () => {
  await inFolder(async (folder) => {
    // One node, y = Identity(x): field 7 is the graph, in it field 1 a node, 11 an input, 12 an output.
    const text = (value: string) => [...new TextEncoder().encode(value)];
    const field = (number: number, bytes: readonly number[]) => [number << 3 | 2, bytes.length, ...bytes];
    const node = field(1, [...field(1, text("x")), ...field(2, text("y")), ...field(4, text("Identity"))]);
    const graph = [
      ...node,
      ...field(2, text("g")),
      ...field(11, field(1, text("x"))),
      ...field(12, field(1, text("y"))),
    ];
    await Deno.writeFile(`${folder}/model.onnx`, Uint8Array.from([8, 8, ...field(7, graph), ...field(8, [16, 17])]));
    const args = ["compress", "--model", folder, "--out", `${folder}/out`, "--cache-dir", "off"];
    assertSays(await failing(args, 1), "no attention", "Softmax");
  });
});

Deno.test("a tokenizer.json that isn't JSON is refused by start", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/onnx`);
    await Deno.copyFile(`${serving}onnx/model.onnx`, `${folder}/onnx/model.onnx`);
    for (const name of ["config.json", "tokenizer_config.json"]) {
      await Deno.copyFile(serving + name, `${folder}/${name}`);
    }
    await Deno.writeTextFile(`${folder}/tokenizer.json`, "{ not json");
    const finished = await runProgram(["start", "--port", "0", "--model", folder, "--cache-dir", "off"]);
    assertEquals(finished.code, 1);
    assertSays(finished.stderr, "tokenizer.json", "JSON");
  });
});

Deno.test("ranks above their dimension and layers that aren't there are wrong usage", async () => {
  await inFolder(async (folder) => {
    const args = ["compress", "--model", bert, "--out", `${folder}/out`, "--cache-dir", "off"];
    assertSays(await failing([...args, "--ranks", "49,12,4"], 2), "r1", "48", "49");
    assertSays(await failing([...args, "--ranks", "8,8,4", "--layers", "3"], 2), "layer 3", "0 to 2");
    assertSays(await failing([...args, "--ranks", "0,1,1"], 2), "--ranks");
    assertSays(await failing([...args, "--ranks", "1.5,1,1"], 2), "--ranks");
    assertSays(await failing([...args, "--energy", "2"], 2), "--energy", "2");
    assertSays(await failing(["compress", "--model", bert, "--rank", "1,1,1"], 2), "--ranks");
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("compress overwrites nothing", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/precious`, "");
    const args = ["compress", "--model", bert, "--ranks", "8,8,4", "--cache-dir", "off"];
    assertSays(await failing([...args, "--out", folder], 2), "precious");
    assertSays(await failing([...args, "--out", `${folder}/precious`], 2), "is a file");
  });
});

Deno.test("a disk that refuses the factors fails the job with one clear error, and the old generation serves on", async () => {
  await inFolder(async (folder) => {
    const cache = `${folder}/cache`;
    await using server = await ServerProcess.start([
      "--model",
      serving,
      "--device",
      "cpu",
      "--ranks",
      "16,4,4",
      "--cache-dir",
      cache,
    ]);
    await server.ready();
    // Every folder that a new factor file could go to is a file now: its write fails as on a full disk.
    await Deno.remove(cache, { recursive: true });
    await Deno.writeTextFile(cache, "in the way");
    const failed = await server.post("/v1/compression?wait=true", { ranks: [8, 4, 2] });
    const problem = await failed.json();
    assertEquals(failed.status, 500, JSON.stringify(problem));
    assertSays(problem.detail, "can't write", "TUCKERD_CACHE_DIR");
    const answer = await server.post("/", { inputs: { question: "Who?", context: "It was Ada." } });
    assertEquals([answer.status, answer.headers.get("x-tuckerd-generation")], [200, "1"]);
    await answer.body?.cancel();
    await Deno.remove(cache);
    const again = await server.post("/v1/compression?wait=true", { ranks: [8, 4, 2] });
    assertEquals([again.status, (await again.json()).generation], [200, 2]);
  });
});
