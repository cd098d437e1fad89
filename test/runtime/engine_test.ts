import { assertEquals, assertRejects, assertThrows } from "@std/assert/mod.js";
import { TuckerdError } from "../../src/errors.ts";
import { createEngine } from "../../src/runtime/engine.ts";
import type { HostTensor } from "../../src/runtime/types.ts";
import { modelOf, projectionModel } from "../support/models.ts";
import { HOLD, letGo, puppets } from "../support/puppets.ts";
import { tinyModel } from "../support/tiny_onnx.ts";

const column = (...values: number[]): HostTensor => ({
  type: "float32",
  shape: [1, values.length],
  data: new Float32Array(values),
});

async function kindOf(promise: Promise<unknown>): Promise<string> {
  return (await assertRejects(() => promise, TuckerdError)).kind;
}

Deno.test("engine: generations of one structure share a session, each with factors of its own rank", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1, 2], [3, 4]]));
  await engine.install(2, projectionModel(2, [[1], [1]]));
  const x = column(1, 2);
  assertEquals((await engine.run(1, { x }))["y"], { type: "float32", shape: [1, 2], data: new Float32Array([7, 10]) });
  assertEquals((await engine.run(2, { x }))["y"], { type: "float32", shape: [1, 1], data: new Float32Array([3]) });
});

Deno.test("engine: generations of other structures run side by side", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  await engine.install(2, projectionModel(3, [[1], [10], [100]]));
  const [two, three] = await Promise.all([
    engine.run(1, { x: column(1, 2) }),
    engine.run(2, { x: column(1, 2, 3) }),
  ]);
  assertEquals([...two["y"]!.data, ...three["y"]!.data], [3, 321]);
});

Deno.test("engine: reports provider, and the model's own inputs without the factors", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  assertThrows(() => engine.inputs, TuckerdError, "No model is installed");
  await engine.install(1, projectionModel(2, [[1], [1]]));
  assertEquals(engine.provider, "cpu");
  assertEquals(engine.inputs, [{ name: "x", type: "float32", shape: ["batch", 2] }]);
  assertEquals(engine.outputs, [{ name: "y", type: "float32", shape: ["batch", "rank"] }]);
});

Deno.test("engine: a structure under construction doesn't hold up the others", async () => {
  await using engine = await createEngine({ provider: "cpu", startWorker: puppets("free", "held-structure") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const install = engine.install(2, projectionModel(3, [[1], [1], [1]]));
  let installed = false;
  install.then(() => installed = true);
  assertEquals([...(await engine.run(1, { x: column(1, 2) }))["y"]!.data], [3]);
  assertEquals(installed, false);
  await letGo("held-structure");
  await install;
  assertEquals([...(await engine.run(2, { x: column(1, 2, 3) }))["y"]!.data], [6]);
});

Deno.test("engine: release waits for the runs in flight", async () => {
  await using engine = await createEngine({ provider: "cpu", startWorker: puppets("releasing") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const order: string[] = [];
  const run = engine.run(1, { x: column(HOLD, 1) }).then(() => order.push("answered"));
  const release = engine.release(1).then(() => order.push("released"));
  assertEquals(await kindOf(engine.run(1, { x: column(1, 2) })), "not-found");
  await letGo("releasing");
  await Promise.all([run, release]);
  assertEquals(order, ["answered", "released"]);
});

Deno.test("engine: a released structure can be built again", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  for (let generation = 1; generation <= 3; generation++) {
    await engine.install(generation, projectionModel(2, [[generation], [0]]));
    assertEquals([...(await engine.run(generation, { x: column(1, 2) }))["y"]!.data], [generation]);
    await engine.release(generation);
    await engine.release(generation); // a second time is no error
  }
});

Deno.test("engine: a graph that doesn't load is bad-model and changes nothing", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const truncated = modelOf(
    { bytes: (projectionModel(3, [[1]]).graph as { bytes: Uint8Array }).bytes.slice(0, 60) },
    "new",
  );
  const unknownOperator = tinyModel({
    inputs: [{ name: "x", shape: [1] }],
    outputs: [{ name: "y", shape: [1] }],
    nodes: [{ operator: "NoSuchOperator", inputs: ["x"], outputs: ["y"] }],
  });
  assertEquals(await kindOf(engine.install(2, truncated)), "bad-model");
  assertEquals(await kindOf(engine.install(2, modelOf({ bytes: unknownOperator }, "new"))), "bad-model");
  assertEquals(await kindOf(engine.install(2, modelOf({ path: "/no/such/model.onnx" }, "new"))), "bad-model");
  assertEquals(await kindOf(engine.run(2, { x: column(1, 2) })), "not-found");
  assertEquals([...(await engine.run(1, { x: column(1, 2) }))["y"]!.data], [3]);
  await engine.install(2, { ...projectionModel(3, [[1], [1], [1]]), structure: "new" });
});

Deno.test("engine: a factor that the graph doesn't take is bad-model", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  const model = projectionModel(2, [[1], [1]]);
  const feeds = { ...model.feeds, other: { shape: [1], data: new Float32Array(1) } };
  const error = await assertRejects(() => engine.install(1, { ...model, feeds }), TuckerdError, "other");
  assertEquals(error.kind, "bad-model");
});

Deno.test("engine: a generation can't be installed twice", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  await assertRejects(() => engine.install(1, projectionModel(2, [[2], [2]])), RangeError);
  await assertRejects(() => engine.install(1, projectionModel(3, [[2], [2], [2]])), RangeError);
  assertEquals([...(await engine.run(1, { x: column(1, 2) }))["y"]!.data], [3]);
  // Nor while it is on its way.
  const [first, second] = [1, 2].map((factor) => engine.install(2, projectionModel(2, [[factor], [factor]])));
  await assertRejects(() => second!, RangeError, "installed already");
  await first;
  assertEquals([...(await engine.run(2, { x: column(1, 2) }))["y"]!.data], [3]);
});

Deno.test("engine: inputs that don't fit are invalid and say what the model takes", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const fits = column(1, 2);
  const wrong: readonly [Record<string, HostTensor>, string][] = [
    [{}, 'Missing model input "x"; the model takes x'],
    [{ x: fits, factor: fits }, "Unknown model input factor"],
    [{ x: column(1, 2, 3) }, "takes shape [batch, 2], got [1, 3]"],
    [{ x: { ...fits, shape: [2] } }, "takes shape [batch, 2], got [2]"],
    [{ x: { type: "int32", shape: [1, 2], data: new Int32Array(2) } }, "takes float32, got int32"],
    [{ x: { ...fits, shape: [3, 2] } }, "needs 6 elements, got 2"],
    [{ x: { ...column(1, 2, 3), shape: [1, 2] } }, "needs 2 elements, got 3"],
  ];
  for (const [inputs, text] of wrong) {
    const error = await assertRejects(() => engine.run(1, inputs), TuckerdError, text);
    assertEquals(error.kind, "invalid");
  }
});

Deno.test("engine: float16 goes in and comes out as bit patterns", async () => {
  await using engine = await createEngine({ provider: "cpu" });
  const doubled = tinyModel({
    inputs: [{ name: "x", type: "float16", shape: ["n"] }],
    outputs: [{ name: "y", type: "float16", shape: ["n"] }],
    nodes: [{ operator: "Add", inputs: ["x", "x"], outputs: ["y"] }],
  });
  await engine.install(1, modelOf({ bytes: doubled }));
  // 1, -2, 65504 / 2 and the smallest subnormal, twice each.
  const x: HostTensor = { type: "float16", shape: [4], data: new Uint16Array([0x3C00, 0xC000, 0x77FF, 0x0001]) };
  const { y } = await engine.run(1, { x });
  assertEquals(y, { type: "float16", shape: [4], data: new Uint16Array([0x4000, 0xC400, 0x7BFF, 0x0002]) });
});

Deno.test("engine: more runs than may wait are overloaded, with a time to retry", async () => {
  await using engine = await createEngine({ provider: "cpu", maxPendingRuns: 2, startWorker: puppets("crowded") });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  const held = [engine.run(1, { x: column(HOLD, 1) }), engine.run(1, { x: column(HOLD, 2) })];
  const error = await assertRejects(() => engine.run(1, { x: column(1, 2) }), TuckerdError, "try again in");
  assertEquals(error.kind, "overloaded");
  const { retryAfterSeconds } = error.fields;
  assertEquals(Number.isInteger(retryAfterSeconds) && Number(retryAfterSeconds) >= 1, true);
  await letGo("crowded");
  assertEquals((await Promise.all(held)).map(({ y }) => y!.data[0]), [778, 779]);
  assertEquals([...(await engine.run(1, { x: column(1, 2) }))["y"]!.data], [3]);
});

Deno.test("engine: a closed engine refuses", async () => {
  const engine = await createEngine({ provider: "cpu" });
  await engine.install(1, projectionModel(2, [[1], [1]]));
  await engine[Symbol.asyncDispose]();
  assertEquals(await kindOf(engine.run(1, { x: column(1, 2) })), "unavailable");
  assertEquals(await kindOf(engine.install(2, projectionModel(2, [[1], [1]]))), "unavailable");
});
