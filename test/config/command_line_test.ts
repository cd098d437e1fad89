import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert/mod.js";
import { type Command, isLoopback, parseCommandLine, TASKS, UsageError } from "../../src/config.ts";

const env = { HOME: "/home/user" };

function parse<T extends Command["task"]>(
  task: T,
  args: string,
  variables: Record<string, string> = env,
): Extract<Command, { task: T }> {
  const command = parseCommandLine([task, ...args.split(" ").filter((part) => part !== "")], {
    HOME: "/home/user",
    ...variables,
  });
  assertEquals(command.task, task);
  return command as Extract<Command, { task: T }>;
}

function refusal(args: readonly string[], variables: Record<string, string> = env): string {
  const error = assertThrows(
    () => parseCommandLine(args, { HOME: "/home/user", ...variables }),
    UsageError,
  ) as UsageError;
  assertEquals(error.kind, "invalid");
  assert(!error.message.includes("\n"), "more than one line");
  return error.message;
}

Deno.test("start without options has the documented defaults", () => {
  assertEquals(parse("start", ""), {
    task: "start",
    device: "auto",
    cacheDir: "/home/user/.cache/tuckerd",
    inference: "auto",
    compression: {},
    server: { host: "127.0.0.1", port: 8000, loopback: true, maxBodyBytes: 1048576, queue: 64, generations: 8 },
  });
});

Deno.test("start takes every option of the contract", () => {
  const args =
    "--model ./m --ranks 64,4,2 --layers 0,2-5 --mode 3d-tucker --balance --layout reference --device webgpu " +
    "--inference cpu --host 0.0.0.0 --port 9000 --max-body 2048 --queue 3 --generations 2 --cache-dir /c";
  assertEquals(parse("start", args, { TUCKERD_API_KEY: "a", TUCKERD_ADMIN_KEY: "b" }), {
    task: "start",
    model: "./m",
    device: "webgpu",
    cacheDir: "/c",
    inference: "cpu",
    compression: { ranks: [64, 4, 2], mode: "3d-tucker", layout: "reference", balance: true, layers: "0,2-5" },
    server: {
      host: "0.0.0.0",
      port: 9000,
      loopback: false,
      apiKey: "a",
      adminKey: "b",
      maxBodyBytes: 2048,
      queue: 3,
      generations: 2,
    },
  });
});

Deno.test("the other tasks", () => {
  assertEquals(parse("compress", "--model m --out d --ratio 4 --execution dense --cache compressed --json"), {
    task: "compress",
    model: "m",
    device: "auto",
    cacheDir: "/home/user/.cache/tuckerd",
    out: "d",
    compression: { compressionRatio: 4 },
    execution: "dense",
    cache: "compressed",
    json: true,
  });
  assertEquals(parse("compress", "--out=d").execution, "factored");
  assertEquals(parse("compress", "--out=d").cache, "full");
  assertEquals(parse("spectrum", "--model m --json"), {
    task: "spectrum",
    model: "m",
    device: "auto",
    cacheDir: "/home/user/.cache/tuckerd",
    layers: "all",
    layout: "heads",
    balance: false,
    json: true,
  });
  const chosen = parse("spectrum", "--layers 0,2-3 --layout reference --balance");
  assertEquals([chosen.layers, chosen.layout, chosen.balance], ["0,2-3", "reference", true]);
  assertEquals(parse("eval", "--dataset squad.json --energy 0.9").compression, { energy: 0.9 });
});

Deno.test("an option counts before its variable, that before PORT, that before the default", () => {
  const variables = { TUCKERD_PORT: "2", PORT: "3" };
  assertEquals(parse("start", "--port 1", variables).server.port, 1);
  assertEquals(parse("start", "", variables).server.port, 2);
  assertEquals(parse("start", "", { PORT: "3" }).server.port, 3);
  assertEquals(parse("start", "", { TUCKERD_PORT: "", PORT: "" }).server.port, 8000);
  assertEquals(parse("start", "--port 0").server.port, 0);
});

Deno.test("every option is a variable too", () => {
  const command = parse("start", "", {
    TUCKERD_MODEL: "m",
    TUCKERD_ENERGY: "0.5",
    TUCKERD_BALANCE: "true",
    TUCKERD_MAX_BODY: "4096",
    TUCKERD_CACHE_DIR: "/c",
    TUCKERD_OUT: "not for start",
  });
  assertEquals([command.model, command.compression.energy, command.compression.balance], ["m", 0.5, true]);
  assertEquals([command.server.maxBodyBytes, command.cacheDir], [4096, "/c"]);
  assertEquals(parse("start", "--no-balance", { TUCKERD_BALANCE: "1" }).compression.balance, false);
});

Deno.test("ranks, energy and ratio are one setting: a given one replaces the variable's", () => {
  assertEquals(parse("start", "--ranks 8,8,4", { TUCKERD_RATIO: "4" }).compression, { ranks: [8, 8, 4] });
  assertEquals(parse("start", "", { TUCKERD_RATIO: "4" }).compression, { compressionRatio: 4 });
  assertStringIncludes(refusal(["start", "--ranks=8,8,4", "--energy=0.9"]), "--ranks and --energy exclude each other");
  assertStringIncludes(
    refusal(["start"], { TUCKERD_RATIO: "4", TUCKERD_ENERGY: "0.9" }),
    "--energy and --ratio exclude each other",
  );
  assertStringIncludes(refusal(["start", "--mode=none", "--ratio=4"]), "--ratio has no meaning with --mode none");
  assertStringIncludes(refusal(["start", "--mode=auto", "--ranks=8,8,4"]), "--mode auto chooses ranks itself");
  assertStringIncludes(
    refusal(["start", "--mode=laser", "--algorithm=hosvd"]),
    "--algorithm hosvd has no meaning with --mode laser; use --mode 4d-tucker or 4d-tucker-laser",
  );
  assertEquals(parse("start", "--algorithm hosvd --ranks 8,4,2").compression, { ranks: [8, 4, 2], algorithm: "hosvd" });
  assertEquals(parse("start", "--mode none").compression, { mode: "none" });
});

Deno.test("overrides of single layers are those of the HTTP contract", () => {
  const { compression } = parse("start", "--ratio 3 --overrides 3=96,24,4;0=skip");
  assertEquals(compression, { compressionRatio: 3, overrides: { "3": { ranks: [96, 24, 4] }, "0": { skip: true } } });
});

Deno.test("values that break a rule: what, the rule, the value, what to do", async (t) => {
  const cases: [string, string][] = [
    ["--ranks=0,8,4", '--ranks must be three positive integers r1,r2,r3 (hidden, head and stack rank), got "0,8,4"'],
    ["--ranks=8,8", '--ranks must be three positive integers r1,r2,r3 (hidden, head and stack rank), got "8,8"'],
    [
      "--ranks=8,1.5,4",
      '--ranks must be three positive integers r1,r2,r3 (hidden, head and stack rank), got "8,1.5,4"',
    ],
    ["--ranks=-8,8,4", '--ranks must be three positive integers r1,r2,r3 (hidden, head and stack rank), got "-8,8,4"'],
    ["--energy=2", '--energy must be above 0 and at most 1, got "2"'],
    ["--energy=0", '--energy must be above 0 and at most 1, got "0"'],
    ["--energy=NaN", '--energy must be above 0 and at most 1, got "NaN"'],
    ["--energy=", '--energy must be above 0 and at most 1, got ""'],
    ["--ratio=0.5", '--ratio must be a number of at least 1, got "0.5"'],
    ["--ratio=1e999", '--ratio must be a number of at least 1, got "1e999"'],
    ["--layers=5-", '--layers must be all, or layer numbers and ranges such as 0,2-5, got "5-"'],
    ["--layers=5-2", '--layers must have ranges that ascend, such as 2-5, got "5-2"'],
    [
      "--overrides=3=8,8",
      '--overrides must be LAYER=R1,R2,R3 or LAYER=skip, with semicolons between, each layer once, got "3=8,8"',
    ],
    ["--overrides=3=0,8,4", "--overrides must be LAYER=R1,R2,R3 or LAYER=skip"],
    ["--overrides=3=skip;03=8,8,4", "--overrides must be LAYER=R1,R2,R3 or LAYER=skip"],
    ["--overrides=", "--overrides must be LAYER=R1,R2,R3 or LAYER=skip"],
    ["--mode=5d", '--mode must be one of 4d-tucker, 3d-tucker, laser, 4d-tucker-laser, auto, none, got "5d"'],
    ["--device=gpu", '--device must be one of auto, webgpu, cpu, got "gpu"'],
    ["--port=65536", '--port must be an integer from 0 to 65535, got "65536"'],
    ["--port=8e3", '--port must be an integer from 0 to 65535, got "8e3"'],
    ["--max-body=10", '--max-body must be an integer of at least 1024, got "10"'],
    ["--host=a b", '--host must be a host name or an IP address, got "a b"'],
    ["--model=", '--model must not be empty, got ""'],
    ["--balance=maybe", '--balance must be true or false, got "maybe"'],
    ["--no-balance=true", '--no-balance takes no value, got "true"'],
    ["--model", "--model needs a value (M); write --model=VALUE"],
    ["--rank=1,2,3", "--rank is not an option of start; did you mean --ranks?"],
    ["--bogus-port", "--bogus-port is not an option of start; did you mean"],
    ["--out=x", "--out is not an option of start; compress takes it, start doesn't"],
    ["--admin-key=x", "--admin-key is not an option of start; set TUCKERD_ADMIN_KEY instead"],
    ["stray", 'argument "stray" is not one that start takes; see deno task start --help'],
    ["-p", "-p is not an option of start"],
  ];
  for (const [arg, message] of cases) {
    await t.step(arg, () => assertStringIncludes(refusal(["start", arg]), message));
  }
});

Deno.test("a value can't be swallowed, and an option can't be given twice", () => {
  assertStringIncludes(refusal(["start", "--model", "--json"]), "--model needs a value");
  assertStringIncludes(refusal(["start", "--port", "1", "--port", "2"]), "--port must be given once");
});

Deno.test("what a task can't do without", () => {
  assertEquals(refusal(["compress"]), "--out is required by compress; write --out DIR, or set TUCKERD_OUT");
  assertEquals(refusal(["eval"]), "--dataset is required by eval; write --dataset NAME|FILE, or set TUCKERD_DATASET");
});

Deno.test("variables are named in their own refusals, and keys are never shown", () => {
  assertEquals(refusal(["start"], { TUCKERD_PORT: "x" }), 'TUCKERD_PORT must be an integer from 0 to 65535, got "x"');
  assertEquals(refusal(["start"], { PORT: "x" }), 'PORT must be an integer from 0 to 65535, got "x"');
  assertStringIncludes(refusal(["start"], { TUCKERD_PORT: "tcp://10.0.0.1:80" }), "enableServiceLinks: false");
  const secret = refusal(["start"], { TUCKERD_ADMIN_KEY: "two words" });
  assertEquals(secret, "TUCKERD_ADMIN_KEY must be visible ASCII characters without spaces");
  const same = refusal(["start"], { TUCKERD_ADMIN_KEY: "k3y", TUCKERD_API_KEY: "k3y" });
  assertStringIncludes(same, "TUCKERD_ADMIN_KEY must differ from TUCKERD_API_KEY");
  assert(!same.includes("k3y"));
});

Deno.test("an unknown task, and none", () => {
  assertEquals(
    refusal(["strat"]),
    'task must be one of start, compress, spectrum, eval, got "strat"; did you mean start?',
  );
  assertEquals(refusal([]), "task must be one of start, compress, spectrum, eval; see --help");
});

Deno.test("the cache folder follows XDG", () => {
  assertEquals(parse("spectrum", "", { XDG_CACHE_HOME: "/x" }).cacheDir, "/x/tuckerd");
  assertEquals(parse("spectrum", "", { XDG_CACHE_HOME: "relative" }).cacheDir, "/home/user/.cache/tuckerd");
  assertEquals(parse("spectrum", "", { XDG_CACHE_HOME: "/x", TUCKERD_CACHE_DIR: "/y" }).cacheDir, "/y");
  assertStringIncludes(refusal(["spectrum"], { HOME: "" }), "TUCKERD_CACHE_DIR must be set");
});

Deno.test("loopback is what only this machine reaches", () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "::1", "[::1]", "a.localhost"]) {
    assert(isLoopback(host), host);
  }
  for (
    const host of ["0.0.0.0", "::", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", "", "1127.0.0.1"]
  ) {
    assert(!isLoopback(host), host);
  }
  assertEquals(parse("start", "--host ::").server.loopback, false);
});

Deno.test("--help tells every option with its rule and default, --version asks for the version", () => {
  assertEquals(parseCommandLine(["start", "--version"], env), { task: "version" });
  assertEquals(parseCommandLine(["--version"], env), { task: "version" });
  for (const args of [["--help"], ["-h"], ["help"]]) assertEquals(parseCommandLine(args, env).task, "help");
  // Help is given even where the rest is incomplete or wrong.
  assertEquals(parseCommandLine(["start", "--bogus", "--help"], env).task, "help");
  assertEquals(parseCommandLine(["compress", "--help"], { TUCKERD_PORT: "x" }).task, "help");
  const expected: Record<string, string[]> = {
    start: [
      "model",
      "ranks",
      "energy",
      "ratio",
      "layers",
      "mode",
      "balance",
      "layout",
      "device",
      "inference",
      "host",
      "port",
    ],
    compress: ["model", "out", "ranks", "energy", "ratio", "layers", "mode", "execution", "cache", "json"],
    spectrum: ["model", "device", "json"],
    eval: ["model", "dataset", "ranks", "json"],
  };
  for (const task of TASKS) {
    const command = parseCommandLine([task, "-h"], env);
    if (command.task !== "help") throw new Error(`${task} -h gave ${command.task}`);
    for (const name of expected[task]!) {
      assertMatch(command.text, new RegExp(`^ {2}--(\\[no-\\])?${name}( |$)`, "m"), `${task} --${name}`);
    }
    for (const part of ["Usage: deno task", "TUCKERD_MODEL", "DEBUG=3", "Example", "Exit status: 0"]) {
      assertStringIncludes(command.text, part);
    }
    for (const line of command.text.split("\n")) assert(line.length <= 100, `${task}: ${line}`);
  }
});
