/** Nothing is reported to anyone: ONNX Runtime's telemetry would leave its queue and an identifier behind. */
import { assertEquals } from "@std/assert/mod.js";
import { temporaryFolder } from "../support/folder.ts";

const program = new URL("../../src/main.ts", import.meta.url).pathname;
const model = new URL("../../models/tuckerd-qa", import.meta.url).pathname;

/** Every file below a folder. */
async function* filesIn(folder: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* filesIn(path);
    else yield path;
  }
}

/** The folder where Deno keeps what it compiled. */
async function denoFolder(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}

/** What compressing and asking leave in the home folder and the temporary one, apart from our own cache. */
async function filesLeft(): Promise<string[]> {
  await using home = await temporaryFolder();
  const qas = [{ id: "1", question: "Who?", answers: [{ text: "Anna" }] }];
  await Deno.mkdir(`${home.path}/tmp`);
  await Deno.writeTextFile(
    `${home.path}/data.json`,
    JSON.stringify({ data: [{ paragraphs: [{ context: "Anna.", qas }] }] }),
  );
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", program, "eval", "--model", model, "--dataset", `${home.path}/data.json`],
    clearEnv: true,
    env: {
      PATH: Deno.env.get("PATH") ?? "",
      HOME: home.path,
      TMPDIR: `${home.path}/tmp`,
      DENO_DIR: await denoFolder(),
    },
  }).output();
  assertEquals(success, true, new TextDecoder().decode(stderr));
  const files = await Array.fromAsync(filesIn(home.path));
  return files.map((path) => path.slice(home.path.length + 1)).filter((path) =>
    path !== "data.json" && !path.startsWith(".cache/tuckerd/")
  );
}

Deno.test("ONNX Runtime's telemetry is off, in all processes", async () => {
  assertEquals(await filesLeft(), []);
});
